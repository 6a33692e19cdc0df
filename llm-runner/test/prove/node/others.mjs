// others.mjs CASE: does with the official clients of Anthropic and Ollama what CASE says, against RUNNER_URL, and prints what the client got as one
// JSON document. What is right is decided by the Go tests that run this.
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";

const url = process.env.RUNNER_URL;
const anthropic = new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 60_000 });
const hurried = new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0, defaultHeaders: { Prefer: "wait=1" } }); // else it waits for half of its timeout
const ollama = new Ollama({ host: url });
const model = "tiny-chat";
const messages = [{ role: "user", content: "hi" }];
const weather = [{ role: "system", content: "be brief" }, { role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const description = "tells the weather of a city";
const asked = { model, max_tokens: 400, system: "be brief", tools: [{ name: "get_weather", description, input_schema: parameters }] };
const functions = [{ type: "function", function: { name: "get_weather", description, parameters } }];

const message = (m) => ({
  text: m.content.filter((b) => b.type === "text").map((b) => b.text).join(""),
  calls: m.content.filter((b) => b.type === "tool_use").map((b) => ({ id: b.id, type: "function", function: { name: b.name, arguments: JSON.stringify(b.input) } })),
  finish: m.stop_reason,
  told: [{ prompt_tokens: m.usage.input_tokens, completion_tokens: m.usage.output_tokens, total_tokens: m.usage.input_tokens + m.usage.output_tokens }],
});

const answer = (m) => ({
  text: m.message.content,
  calls: (m.message.tool_calls ?? []).map((c) => ({ id: c.id, type: "function", function: { name: c.function.name, arguments: JSON.stringify(c.function.arguments) } })),
  finish: m.done_reason,
  told: [{ prompt_tokens: m.prompt_eval_count, completion_tokens: m.eval_count, total_tokens: m.prompt_eval_count + m.eval_count }],
});

const refusal = async (promise) => {
  try {
    return { text: "it answered", value: await promise };
  } catch (e) {
    return { name: e.constructor.name, status: e.status ?? e.status_code, message: e.message, retryafter: e.headers?.get?.("retry-after") ?? "" };
  }
};

const cases = {
  "anthropic chat": async () => message(await anthropic.messages.create({ model, max_tokens: 400, messages })),
  async "anthropic stream"() {
    const stream = anthropic.messages.stream({ model, max_tokens: 400, messages });
    let chunks = 0;
    stream.on("text", () => chunks++);
    return { ...message(await stream.finalMessage()), chunks };
  },
  async "anthropic tools"() {
    const question = [weather[1]];
    const first = await anthropic.messages.create({ ...asked, messages: question });
    const results = first.content.filter((b) => b.type === "tool_use").map((b) => ({ type: "tool_result", tool_use_id: b.id, content: "sunny" }));
    const second = await anthropic.messages.create({ ...asked, messages: [...question, { role: "assistant", content: first.content }, { role: "user", content: results }] });
    return { first: message(first), second: message(second) };
  },
  "anthropic tools-stream": async () => message(await anthropic.messages.stream({ ...asked, messages: [weather[1]] }).finalMessage()),
  async "anthropic models"() {
    const ids = [];
    for await (const m of anthropic.models.list()) ids.push(m.id);
    return { ids, value: await anthropic.messages.countTokens({ model, messages }) };
  },
  "anthropic held": () => refusal(hurried.messages.create({ model: "gemma4", max_tokens: 9, messages })),
  "anthropic held-stream": () => refusal(hurried.messages.stream({ model: "gemma4", max_tokens: 9, messages }).finalMessage()),

  "ollama chat": async () => answer(await ollama.chat({ model, messages })),
  async "ollama stream"() {
    let text = "", chunks = 0, last;
    for await (const part of await ollama.chat({ model, messages, stream: true })) {
      text += part.message.content;
      chunks++;
      last = part;
    }
    return { ...answer(last), text, chunks };
  },
  async "ollama tools"() {
    const first = await ollama.chat({ model, messages: weather, tools: functions });
    const results = first.message.tool_calls.map((c) => ({ role: "tool", tool_name: c.function.name, content: "sunny" }));
    const second = await ollama.chat({ model, messages: [...weather, first.message, ...results], tools: functions });
    return { first: answer(first), second: answer(second) };
  },
  async "ollama generate"() {
    const m = await ollama.generate({ model, prompt: "hi" });
    return { text: m.response, finish: m.done_reason, told: [{ prompt_tokens: m.prompt_eval_count, completion_tokens: m.eval_count, total_tokens: m.prompt_eval_count + m.eval_count }] };
  },
  async "ollama models"() {
    const list = await ollama.list();
    return { ids: list.models.map((m) => m.name), value: await ollama.show({ model }) };
  },
  "ollama embeddings": async () => ({ plain: (await ollama.embed({ model: "contabo/tiny-embed", input: ["one", "two", "three"] })).embeddings }),
  "ollama held": () => refusal(ollama.chat({ model: "gemma4", messages })),
};

process.stdout.write(JSON.stringify(await cases[process.argv[2]]()));
