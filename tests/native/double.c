/* A libllama.so that dies at its first decode: always, or only where weights lie in extra buffers (-DALWAYS=0). */
#include <dlfcn.h>
#include <signal.h>
#include "llama.h"

static bool extra;

struct llama_model * llama_model_load_from_file(const char * path, struct llama_model_params params) {
    extra = params.use_extra_bufts;
    struct llama_model * (*load)(const char *, struct llama_model_params) =
        dlsym(RTLD_NEXT, "llama_model_load_from_file");
    return load(path, params);
}

int32_t llama_decode(struct llama_context * context, struct llama_batch batch) {
    if (extra || ALWAYS) {
        raise(SIGSEGV);
    }
    int32_t (*decode)(struct llama_context *, struct llama_batch) = dlsym(RTLD_NEXT, "llama_decode");
    return decode(context, batch);
}
