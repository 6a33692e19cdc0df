// client.mjs CASE: does with the official OpenAI client what CASE says, against OPENAI_BASE_URL, and prints what the
// client got as one JSON document, with the token counts it was told. What is right is decided by the Go tests that run
// this.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const model = "tiny-chat";
const messages = [{ role: "user", content: "hi" }];
const tools = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "tells the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

// Every usage object that an answer carried.
const told = [];

const cases = {
  async chat() {
    return completion(await client.chat.completions.create({ model, messages }));
  },

  async stream() {
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true },
    });
    return accumulate(stream);
  },

  // A question with tools, the call that comes back, its result, and the last word.
  async tools() {
    const asked = [{ role: "system", content: "be brief" }, { role: "user", content: "What is the weather in Paris?" }];
    const first = await client.chat.completions.create({ model, messages: asked, tools });
    const message = first.choices[0].message;
    const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "sunny" }));
    const second = await client.chat.completions.create({ model, messages: [...asked, message, ...results], tools });
    return { first: completion(first), second: completion(second) };
  },

  async "tools-stream"() {
    return accumulate(await client.chat.completions.create({
      model, messages, tools, stream: true, stream_options: { include_usage: true },
    }));
  },

  // The client's own parser checks the answer against the schema's shape.
  async schema() {
    const answer = await client.chat.completions.parse({
      model, messages,
      response_format: {
        type: "json_schema",
        json_schema: {
          name: "amount",
          strict: true,
          schema: {
            type: "object",
            properties: { answer: { type: "integer" }, unit: { type: "string" } },
            required: ["answer", "unit"],
            additionalProperties: false,
          },
        },
      },
    });
    return { ...completion(answer), value: JSON.parse(answer.choices[0].message.content) };
  },

  // By default the client asks for base64 and decodes it.
  async embeddings() {
    const texts = { model: "tiny-embed", input: ["bake bread in the oven", "bread from the oven", "restore the server"] };
    const packed = await client.embeddings.create(texts);
    const plain = await client.embeddings.create({ ...texts, encoding_format: "float" });
    told.push(packed.usage, plain.usage);
    return {
      packed: packed.data.map((d) => Array.from(d.embedding)),
      plain: plain.data.map((d) => d.embedding),
    };
  },

  async models() {
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    return { ids };
  },

  // Leaves in the midst of a long answer.
  async abort() {
    const stream = await client.chat.completions.create({ model: "tiny-slow", messages, stream: true });
    let text = "";
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      if (text.length > 10) {
        stream.controller.abort();
        break;
      }
    }
    return { text };
  },

  async unknown() {
    return completion(await client.chat.completions.create({ model: "nobody-has-this", messages }));
  },

  async held() {
    return refused(client.chat.completions.create({ model: "gemma4", messages }));
  },

  async "held-stream"() {
    return refused(client.chat.completions.create({ model: "gemma4", messages, stream: true }));
  },

  async refused() {
    return refused(client.chat.completions.create({ model, messages }));
  },

  async invalid() {
    return refused(client.chat.completions.create({ model, messages: "not a list" }));
  },
};

function completion(c) {
  const { message, finish_reason } = c.choices[0];
  told.push(c.usage);
  return { text: message.content, calls: message.tool_calls ?? [], finish: finish_reason };
}

async function accumulate(stream) {
  const got = { text: "", calls: [], finish: null, chunks: 0 };
  for await (const chunk of stream) {
    got.chunks++;
    if (chunk.usage) told.push(chunk.usage);
    const choice = chunk.choices[0];
    if (!choice) continue;
    got.text += choice.delta.content ?? "";
    got.finish = choice.finish_reason ?? got.finish;
    for (const part of choice.delta.tool_calls ?? []) {
      const call = (got.calls[part.index] ??= { id: part.id, type: part.type, function: { name: "", arguments: "" } });
      call.function.name += part.function.name ?? "";
      call.function.arguments += part.function.arguments ?? "";
    }
  }
  return got;
}

async function refused(promise) {
  try {
    await promise;
  } catch (e) {
    if (!(e instanceof OpenAI.APIError)) throw e;
    return {
      name: e.constructor.name, status: e.status, type: e.type, code: e.code, message: e.message,
      retryAfter: e.headers?.get("retry-after") ?? "",
    };
  }
  throw new Error("it was not refused");
}

const work = cases[process.argv[2]];
if (!work) throw new Error(`no case ${process.argv[2]}: there are ${Object.keys(cases).join(", ")}`);
const got = await work();
console.log(JSON.stringify({ ...got, told }));
