// The calls of the `openai` package for Node, unchanged. Ends with an error at the first that goes wrong.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = process.env.PACKAGES;
const load = (name) => import(pathToFileURL(`${packages}/node_modules/${name}`).href);
const { default: OpenAI, toFile } = await load("openai/index.mjs");
const { zodResponseFormat } = await load("openai/helpers/zod.mjs");
const { z } = await load("zod/index.js");

const connect = (url, options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, ...options });
const ai = connect(process.env.CHATS);
const vectors = connect(process.env.VECTORS);
const model = "local";
const messages = [{ role: "user", content: "hello" }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { enum: ["Rome", "Oslo"] } }, required: ["city"], additionalProperties: false },
  },
};
const forced = { tools: [weather], tool_choice: "required", parallel_tool_calls: false };

const calls = {
  async chat() {
    const answer = await ai.chat.completions.create({ model, messages, max_tokens: 5 });
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    assert.match(answer._request_id, /^req_/);
  },

  async streamIsTheUnstreamedText() {
    const asked = { model, messages, max_tokens: 30, seed: 3, n: 2, ignore_eos: true };
    const whole = await ai.chat.completions.create(asked);
    const texts = ["", ""];
    let usage;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await ai.chat.completions.create({ ...asked, ...options })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.deepEqual(texts, whole.choices.map((choice) => choice.message.content));
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  },

  async streamHelper() {
    const stream = ai.chat.completions.stream({ model, messages, max_tokens: 9, stream_options: { include_usage: true } });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    const answer = await stream.finalChatCompletion();
    assert.equal(answer.choices[0].message.content ?? "", text);
    assert.ok((await stream.totalUsage()).completion_tokens > 0);
  },

  async abortedStream() {
    const stream = await ai.chat.completions.create({ model, messages, max_tokens: 500, ignore_eos: true, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 3) break;
    assert.equal(seen, 3);
    const kept = await ai.chat.completions.create({ model, messages, max_tokens: 2 });
    assert.equal(kept.choices.length, 1);
  },

  async completion() {
    const answer = await ai.completions.create({ model, prompt: "hello", max_tokens: 4, logprobs: 2, echo: true });
    const [choice] = answer.choices;
    assert.ok(choice.text.startsWith("hello"));
    assert.equal(choice.logprobs.tokens.length, choice.logprobs.token_logprobs.length);
    let text = "";
    for await (const chunk of await ai.completions.create({ model, prompt: "hello", max_tokens: 4, stream: true }))
      text += chunk.choices[0].text;
    assert.equal(typeof text, "string");
  },

  async logprobs() {
    const answer = await ai.chat.completions.create({ model, messages, max_tokens: 4, logprobs: true, top_logprobs: 3 });
    const listed = answer.choices[0].logprobs.content;
    assert.equal(listed.length, answer.usage.completion_tokens);
    for (const token of listed) assert.equal(token.top_logprobs.length, 3);
  },

  async jsonSchema() {
    const Mood = z.object({ mood: z.enum(["good", "bad"]) });
    const answer = await ai.chat.completions.parse({ model, messages, response_format: zodResponseFormat(Mood, "mood") });
    assert.ok(["good", "bad"].includes(answer.choices[0].message.parsed.mood));
  },

  async embeddings() {
    const input = ["a", "b"];
    const plain = await vectors.embeddings.create({ model, input, encoding_format: "float" });
    const packed = await vectors.embeddings.create({ model, input });
    assert.equal(packed.data.length, 2);
    packed.data.forEach((found, i) =>
      found.embedding.forEach((value, j) => assert.ok(Math.abs(value - plain.data[i].embedding[j]) < 1e-6)),
    );
  },

  async models() {
    const ids = [];
    for await (const found of ai.models.list()) ids.push(found.id);
    assert.equal(ids.length, 1);
    assert.equal((await ai.models.retrieve(ids[0])).object, "model");
  },

  async batch() {
    const names = ["first", "second", "third"];
    const line = (custom_id) => ({ custom_id, method: "POST", url: "/v1/chat/completions", body: { model, messages, max_tokens: 4 } });
    const content = names.map((name) => JSON.stringify(line(name))).join("\n");
    const file = await ai.files.create({ file: await toFile(Buffer.from(content), "in.jsonl"), purpose: "batch" });
    assert.equal((await ai.files.waitForProcessing(file.id)).status, "processed");
    let batch = await ai.batches.create({
      input_file_id: file.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
      metadata: { of: "a test" },
    });
    while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
      await new Promise((done) => setTimeout(done, 100));
      batch = await ai.batches.retrieve(batch.id);
    }
    assert.deepEqual(batch.request_counts, { total: 3, completed: 3, failed: 0 });
    const answers = (await (await ai.files.content(batch.output_file_id)).text()).trim().split("\n").map(JSON.parse);
    assert.deepEqual(answers.map((answer) => answer.custom_id).sort(), [...names].sort());
    for (const answer of answers) assert.equal(answer.response.body.object, "chat.completion");
    const listed = [];
    for await (const found of ai.batches.list({ limit: 1 })) listed.push(found.id);
    assert.ok(listed.includes(batch.id));
    const ids = [];
    for await (const found of ai.files.list({ purpose: "batch" })) ids.push(found.id);
    assert.ok(ids.includes(file.id));
    assert.ok((await ai.files.delete(file.id)).deleted);
    await assert.rejects(ai.files.retrieve(file.id), OpenAI.NotFoundError);
    await assert.rejects(ai.batches.cancel(batch.id), OpenAI.ConflictError);
  },

  async errors() {
    const ask = (fields) => ai.chat.completions.create({ model, messages, ...fields });
    for (const stream of [false, true]) {
      await assert.rejects(ask({ model: "gpt-5", stream }), (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError);
        return error.code === "model_not_found";
      });
      await assert.rejects(ask({ temperature: 9, stream }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        return error.param === "temperature" && error.type === "invalid_request_error";
      });
    }
  },

  async retries() {
    const again = connect(process.env.BUSY, { maxRetries: 2 });
    const answer = await again.chat.completions.create({ model, messages, max_tokens: 2 });
    assert.equal(answer.choices.length, 1);
  },
};

const toolCalls = {
  async call() {
    const answer = await ai.chat.completions.create({ model, messages, ...forced });
    const [choice] = answer.choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.tool_calls[0].function.name, "weather");
    assert.ok(["Rome", "Oslo"].includes(JSON.parse(choice.message.tool_calls[0].function.arguments).city));
    const turns = [...messages, choice.message, { role: "tool", tool_call_id: choice.message.tool_calls[0].id, content: "5" }];
    const after = await ai.chat.completions.create({ model, messages: turns, tools: [weather], max_tokens: 5 });
    assert.equal(after.choices.length, 1);
  },

  async streamedCall() {
    const asked = { model, messages, ...forced, seed: 5 };
    const whole = await ai.chat.completions.create(asked);
    const streamed = await ai.chat.completions.stream(asked).finalChatCompletion();
    const said = (answer) => answer.choices[0].message.tool_calls.map((call) => call.function.arguments);
    assert.deepEqual(said(streamed), said(whole));
    assert.equal(streamed.choices[0].finish_reason, "tool_calls");
  },

  async runner() {
    let asked;
    const own = { ...weather.function, parse: JSON.parse, function: (given) => ((asked = given.city), "5 degrees") };
    const tool_choice = { type: "function", function: { name: "weather" } };
    const runner = ai.chat.completions.runTools({ model, messages, max_tokens: 200, tools: [{ type: "function", function: own }], tool_choice, parallel_tool_calls: false });
    await runner.done();
    assert.ok(["Rome", "Oslo"].includes(asked));
  },
};

const all = { ...calls, ...(process.env.TOOLS ? toolCalls : {}) };
for (const [name, call] of Object.entries(all)) {
  try {
    await call();
  } catch (error) {
    console.error(`${name}:`, error);
    process.exit(1);
  }
}
console.log(`${Object.keys(all).length} calls of openai ${JSON.parse(readFileSync(`${packages}/node_modules/openai/package.json`)).version}`);
