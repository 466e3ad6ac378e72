// As ggml_tile_config_init (ggml-cpu/amx/mmq.cpp), with fewer tiles: so GCC 12 drops their stores at any -march.
// The test replaces `ldtilecfg` by a call that reads what it would read.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <immintrin.h>

struct tile_config_t {
    uint8_t palette_id = 0;
    uint8_t start_row = 0;
    uint8_t reserved_0[14] = {0};
    uint16_t colsb[16] = {0};
    uint8_t rows[16] = {0};
};

static uint8_t seen[64];

extern "C" void load_tile_configuration(const void * config) {
    std::memcpy(seen, config, sizeof seen);
}

extern "C" __attribute__((noinline)) void ggml_tile_config_init(void) {
    static thread_local bool done = false;

    if (done) {
        return;
    }

    alignas(64) tile_config_t tc = {};
    tc.palette_id = 1;
    tc.start_row = 0;
    tc.rows[0] = 8;   tc.colsb[0] = 64;
    tc.rows[1] = 8;   tc.colsb[1] = 64;
    tc.rows[2] = 16;  tc.colsb[2] = 32;

    _tile_loadconfig(&tc);
    done = true;
}

int main() {
    ggml_tile_config_init();
    for (uint8_t byte : seen) {
        std::printf("%d ", byte);
    }
    return 0;
}
