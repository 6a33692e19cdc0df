package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// What the upstream says, as JSON in one piece and as a stream of about twenty events. It is rendered once: the upstream
// must cost as little as possible, since it shares the machine with what is measured.
var (
	words  = strings.SplitAfter("A gateway that is well made is hardly noticed by those whom it serves every day and night. ", " ")
	pieces = words[:len(words)-1]
	text   = strings.Join(pieces, "")
	tokens = `"usage":{"prompt_tokens":86,"completion_tokens":18,"total_tokens":104,"prompt_tokens_details":{"cached_tokens":0,` +
		`"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}`
	wholeReply = fmt.Appendf(nil, `{"id":"chatcmpl-B7xq0Zk3mWc1d9FhT2uYv8aLr5sNe","object":"chat.completion","created":1735689600,`+
		`"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":%q,"refusal":null,"annotations":[]},`+
		`"logprobs":null,"finish_reason":"stop"}],%s,"service_tier":"default","system_fingerprint":"fp_4c2f8e1a90"}`, model, text, tokens)
	streamEvents = renderEvents()
	usageEvent   = event(`"choices":[],` + tokens)
	lastEvent    = []byte("data: [DONE]\n\n")
)

const model = "bench"

func event(rest string) []byte {
	return fmt.Appendf(nil, "data: {\"id\":\"chatcmpl-B7xq0Zk3mWc1d9FhT2uYv8aLr5sNe\",\"object\":\"chat.completion.chunk\","+
		"\"created\":1735689600,\"model\":%q,\"system_fingerprint\":\"fp_4c2f8e1a90\",%s}\n\n", model, rest)
}

func renderEvents() [][]byte {
	delta := func(delta, finish string) []byte {
		return event(fmt.Sprintf(`"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]`, delta, finish))
	}
	all := [][]byte{delta(`{"role":"assistant","content":""}`, "null")}
	for _, p := range pieces {
		all = append(all, delta(fmt.Sprintf(`{"content":%q}`, p), "null"))
	}
	return append(all, delta("{}", `"stop"`))
}

// upstream is the provider that all contestants stand before. Every event of a stream is sent by itself, at once.
func upstream(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Method == http.MethodGet { // a list of models, for contestants that ask for one
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"object":"model","created":1735689600,"owned_by":"bench"}]}`, model)
		return
	}
	flat := bytes.ReplaceAll(body, []byte(" "), nil)
	if !bytes.Contains(flat, []byte(`"stream":true`)) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(wholeReply) // a client that has gone is its own affair, here and below
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	events := streamEvents
	if bytes.Contains(flat, []byte(`"include_usage":true`)) {
		events = append(events[:len(events):len(events)], usageEvent)
	}
	flush := http.NewResponseController(w)
	for _, e := range append(events[:len(events):len(events)], lastEvent) {
		if _, err := w.Write(e); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
	}
}
