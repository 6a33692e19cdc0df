package gateway_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

const (
	role   = `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	hello  = `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}], "unknown" : 1.50}` + "\n\n"
	stop   = `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	counts = `data: {"id":"c1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n"
	done   = "data: [DONE]\n\n"
)

// told is what counts tells.
var told = llm.Usage{Input: llm.Known(12), Output: llm.Known(3), CachedInput: llm.Known(4)}

func TestWholeStreamsPassByteForByte(t *testing.T) {
	plain := role + hello + stop + counts + done
	big := strings.Repeat("x", 70<<10)
	huge := strings.Repeat("y", 1<<20+5)
	for _, c := range []struct {
		name string
		send string // by the upstream, as one chunk
		want string // by the client; "" the same
		head string // of the upstream; "" a chunked event stream
		tail string // behind the chunk; "" the last chunk
	}{
		{name: "LF", send: plain},
		{name: "CRLF", send: strings.ReplaceAll(plain, "\n", "\r\n")},
		{name: "CR", send: strings.ReplaceAll(plain, "\n", "\r")},
		{name: "no blank behind data:", send: strings.ReplaceAll(plain, "data: ", "data:")},
		{name: "several data lines in one event", send: role + "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{},\ndata: \"finish_reason\":\"stop\"}]}\n\n" + counts + done},
		{name: "comments", send: ": hello\n\n" + role + ": PROCESSING\n\n" + hello + ":\n" + stop + counts + ": bye\n\n" + done},
		{name: "id and retry", send: "retry: 100\n\n" + "id: 1\n" + role + "id: 2\nevent: message\n" + hello + stop + counts + done},
		{name: "empty data", send: "data:\n\n" + role + "data: \n\n" + stop + counts + done},
		{name: "emoji, raw and escaped", send: role + strings.ReplaceAll(hello, "hello", "😀é\\uD83D\\uDE00") + stop + counts + done},
		{name: "event over 64 KB", send: role + strings.ReplaceAll(hello, "hello", big) + stop + counts + done},
		{name: "event over 1 MB", send: role + strings.ReplaceAll(hello, "hello", huge) + stop + counts + done},
		{name: "byte order mark", send: "\ufeff" + plain, want: plain},
		{name: "blank behind [DONE]", send: role + stop + counts + "data: [DONE] \n\n"},
		{name: "[DONE] missing", send: role + hello + stop + counts, want: plain},
		{name: "[DONE] without its empty line", send: role + hello + stop + counts + "data: [DONE]", want: plain},
		{name: "an event that never ends behind the finish", send: role + stop + counts + `data: {"choi`, want: role + stop + counts + done},
		{name: "bytes behind [DONE]", send: plain + hello + "rubbish", want: plain},
		{name: "usage on the last chunk with choices", send: role + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n" + done},
		{name: "usage in x_groq", send: role + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","usage":{"queue_time":0.1,"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}}` + "\n\n" + done},
		{name: "two choices", send: role + `data: {"choices":[{"index":1,"delta":{"content":"b"}}]}` + "\n\n" + stop + `data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}` + "\n\n" + counts + done},
		{name: "words of the protocol inside the text", send: role + strings.ReplaceAll(hello, "hello", `\"finish_reason\":\"error\",\"error\":{} data: [DONE]`) + stop + counts + done},
		{name: "tool calls", send: role + `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"error\":"}}]}}]}` + "\n\n" + stop + counts + done},
		{name: "chunk extensions and trailers", send: plain, head: strings.Replace(eventHead, "\r\n\r\n", "\r\nTrailer: X-End\r\n\r\n", 1), tail: "0;a=b\r\nX-End: 1\r\n\r\n"},
		{name: "no length at all", send: plain, head: "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", tail: "-"},
		{name: "wrong content type", send: plain, head: strings.Replace(eventHead, "text/event-stream", "text/plain", 1)},
		{name: "no content type", send: plain, head: strings.Replace(eventHead, "Content-Type: text/event-stream\r\n", "", 1)},
		{name: "reset behind the finish", send: role + hello + stop + counts, want: plain, tail: "reset"},
		{name: "cut off behind the finish", send: role + hello + stop + counts, want: plain, tail: "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := serveRaw(t, func(r *raw) {
				head := c.head
				if head == "" {
					head = eventHead
				}
				r.say(head)
				if strings.Contains(head, "chunked") {
					r.chunk(c.send)
				} else {
					r.say(c.send)
				}
				switch c.tail {
				case "":
					r.say("0\r\n\r\n")
				case "reset":
					r.reset()
				case "-":
				default:
					r.say(c.tail)
				}
			})
			l := openLab(t, []route.Member{remote("up", url)})
			want := c.want
			if want == "" {
				want = c.send
			}
			g := l.post(chat, streamed)
			if g.err != nil || g.StatusCode != 200 || g.body != want {
				t.Fatalf("status %d, error %v, body\n%s\nwant\n%s", g.StatusCode, g.err, clip(g.body), clip(want))
			}
			if ct := g.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/event-stream") {
				t.Errorf("content type %q", ct)
			}
			row := l.rows()[0]
			if row.Outcome != usage.OK || row.Usage != told || row.FirstByte <= 0 {
				t.Errorf("ledger: %+v", row)
			}
		})
	}
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:1000] + "..." + s[len(s)-1000:]
	}
	return s
}

func TestAStreamMayBeSplitAnywhere(t *testing.T) {
	text := "\ufeff" + strings.ReplaceAll(role+": c\r\n\r\n"+strings.ReplaceAll(hello, "hello", "😀")+stop+counts+done, "\n", "\r\n")
	want := strings.TrimPrefix(text, "\ufeff")
	url, _ := serveRaw(t, func(r *raw) {
		at := r.n % len(text)
		r.say(eventHead)
		if at > 0 {
			r.chunk(text[:at])
		}
		r.chunk(text[at:])
		r.say("0\r\n\r\n")
	})
	l := openLab(t, []route.Member{remote("up", url)})
	for i := range len(text) {
		if g := l.post(chat, streamed); g.err != nil || g.body != want {
			t.Fatalf("request %d: error %v, body %q", i, g.err, g.body)
		}
	}
	for _, row := range l.rows() {
		if row.Outcome != usage.OK || row.Usage != told {
			t.Fatalf("ledger: %+v", row)
		}
	}
}

func TestEveryByteMayComeAlone(t *testing.T) {
	text := role + strings.ReplaceAll(hello, "hello", "😀 \\uD83D\\uDE00") + stop + counts + done
	url, _ := serveRaw(t, func(r *raw) {
		r.say(eventHead)
		for i := range len(text) {
			r.chunk(text[i : i+1])
		}
		r.say("0\r\n\r\n")
	})
	l := openLab(t, []route.Member{remote("up", url)})
	if g := l.post(chat, streamed); g.err != nil || g.body != text {
		t.Fatalf("error %v, body %q", g.err, g.body)
	}
}

func TestAGzippedStreamIsUnpacked(t *testing.T) {
	url, requests := serveRaw(t, func(r *raw) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		r.say(strings.Replace(eventHead, "\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n", 1))
		for _, part := range []string{role, hello, stop + counts + done} {
			_, _ = io.WriteString(z, part)
			_ = z.Flush()
			r.chunk(b.String())
			b.Reset()
		}
		_ = z.Close()
		r.chunk(b.String())
		r.say("0\r\n\r\n")
	})
	l := openLab(t, []route.Member{remote("up", url)})
	g := l.post(chat, streamed, "Accept-Encoding", "br")
	if g.err != nil || g.body != role+hello+stop+counts+done || g.Header.Get("Content-Encoding") != "" {
		t.Fatalf("error %v, header %v, body %q", g.err, g.Header, g.body)
	}
	if got := wait(t, "request", requests).req.Header.Get("Accept-Encoding"); got != "gzip" {
		t.Errorf("the upstream was offered the encodings %q", got)
	}
}

// Every one of these must not look like a whole answer: the client gets an error event, no [DONE] and a connection that
// ends in the middle, and the ledger says that it failed.
func TestBrokenStreamsAreNeverACleanEnd(t *testing.T) {
	inBand := `data: {"error":{"message":"the model fell over","type":"server_error","code":null}}` + "\n\n"
	for _, c := range []struct {
		name string
		send []string // in chunks
		end  func(*raw)
		want string // passed on before the error
		says string // part of the error's message
		own  bool   // the error event is the upstream's own
	}{
		{name: "reset between events", send: []string{role, hello}, end: (*raw).reset, want: role + hello, says: "reset"},
		{name: "reset in the middle of an event", send: []string{role, hello, `data: {"choices":[{"in`}, end: (*raw).reset, want: role + hello, says: "reset"},
		{name: "connection closed", send: []string{role, hello}, end: func(r *raw) { r.Close() }, want: role + hello, says: "closed"},
		{name: "half closed", send: []string{role, hello}, end: func(r *raw) { _ = r.Conn.(interface{ CloseWrite() error }).CloseWrite(); <-r.gone }, want: role + hello, says: "closed"},
		{name: "proper end without finish", send: []string{role, hello}, end: endChunks, want: role + hello, says: "ended the stream"},
		{name: "end in the middle of an event", send: []string{role, hello, `data: {"choices":[{"in`}, end: endChunks, want: role + hello, says: "middle of an event"},
		{name: "[DONE] without finish", send: []string{role, hello, done}, end: endChunks, want: role + hello, says: "without a finish_reason"},
		{name: "one of two choices unfinished", send: []string{role, `data: {"choices":[{"index":1,"delta":{}}]}` + "\n\n", stop}, end: endChunks, want: role + `data: {"choices":[{"index":1,"delta":{}}]}` + "\n\n" + stop, says: "ended the stream"},
		{name: "event that is no JSON", send: []string{role, "data: {\"choices\":[{]}\n\n", stop, done}, end: endChunks, want: role, says: "not valid JSON at byte 13"},
		{name: "event that is no object", send: []string{role, "data: hello\n\n", stop, done}, end: endChunks, want: role, says: "not valid JSON"},
		{name: "chunk length that is none", send: []string{role}, end: func(r *raw) { r.say("xyz\r\n") }, want: role, says: "chunk length"},
		{name: "error event", send: []string{role, hello, inBand, stop, done}, end: endChunks, want: role + hello + inBand, says: "fell over", own: true},
		{name: "event named error", send: []string{role, "event: error\ndata: {\"message\":\"oh\"}\n\n"}, end: endChunks, want: role, says: "oh"},
		{name: "finish_reason error", send: []string{role, strings.Replace(stop, "stop", "error", 1), done}, end: endChunks, want: role, says: "gave up"},
		{name: "error in x_groq", send: []string{role, `data: {"choices":[],"x_groq":{"error":"over_capacity"}}` + "\n\n"}, end: endChunks, want: role, says: "gave up"},
		{name: "silence", send: []string{role, hello}, end: func(r *raw) { <-r.gone }, want: role + hello, says: "no answer for 2s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := serveRaw(t, func(r *raw) {
				r.say(eventHead)
				r.chunk(c.send...)
				// The client must have what came before the fault: a reset may overtake it.
				wait(t, "client", r.passed)
				c.end(r)
			})
			l := openLab(t, []route.Member{tolerant(c.name, "up", url)})
			g := l.postAfter(chat, streamed, c.want)
			rest, ok := strings.CutPrefix(g.body, c.want)
			if !ok || g.StatusCode != 200 {
				t.Fatalf("status %d, body\n%s\nwant\n%s", g.StatusCode, g.body, c.want)
			}
			if c.own {
				rest = inBand + rest
			}
			if !strings.HasPrefix(rest, `data: {"error":{"message":"`) || !strings.Contains(rest, c.says) || strings.Count(rest, "data:") != 1 {
				t.Errorf("the error event is %q, want one that says %q", rest, c.says)
			}
			if strings.Contains(g.body, "[DONE]") || g.err == nil {
				t.Errorf("looks like a clean end: error %v, body %q", g.err, g.body)
			}
			if got := l.outcome(); got != usage.Failed {
				t.Errorf("ledger: %s", got)
			}
		})
	}
}

func endChunks(r *raw) { r.say("0\r\n\r\n") }

// Nothing of the answer has been shown yet: the client gets a status that tells the truth, and a named fallback answers.
func TestFailuresBeforeTheFirstEvent(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*raw)
		status int
		says   string
		final  bool // no fallback can help
	}{
		{name: "reset before the headers", answer: (*raw).reset, status: 503, says: "unavailable"},
		{name: "closed before the headers", answer: func(r *raw) {}, status: 503, says: "unavailable"},
		{name: "silence before the headers", answer: func(r *raw) { <-r.gone }, status: 503, says: "no answer"},
		{name: "silence behind the headers", answer: func(r *raw) { r.say(eventHead); <-r.gone }, status: 502, says: "no answer"},
		{name: "reset behind the headers", answer: func(r *raw) { r.say(eventHead); r.reset() }, status: 502, says: "up: "},
		{name: "nothing behind the headers", answer: func(r *raw) { r.say(eventHead, "0\r\n\r\n") }, status: 502, says: "before the answer began"},
		{name: "[DONE] alone", answer: func(r *raw) { r.say(eventHead, chunked(done)) }, status: 502, says: "finish_reason"},
		{name: "comments, then the end", answer: func(r *raw) { r.say(eventHead, chunked(": PROCESSING\n\n")) }, status: 502, says: "before the answer began"},
		{name: "broken first event", answer: func(r *raw) { r.say(eventHead, chunked("data: {\"a\"}\n\n")) }, status: 502, says: "not valid JSON at byte 4"},
		{name: "error as first event", answer: func(r *raw) {
			r.say(eventHead, chunked(`data: {"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}`+"\n\n"))
		}, status: 429, says: "slow down"},
		{name: "status 200 with an error body", answer: func(r *raw) {
			r.say(sized(`{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}`))
		}, status: 429, says: "slow down"},
		{name: "a web page", answer: func(r *raw) {
			r.say(strings.Replace(sized("<!doctype html><title>Maintenance</title>"), "application/json", "text/html; charset=utf-8", 1))
		}, status: 502, says: "text/html that is no event stream"},
		{name: "status 500", answer: func(r *raw) {
			r.say("HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + `{"error":{"message":"fell over"}}`[:32])
		}, status: 502, says: "upstream_broken"},
		{name: "status 503", answer: func(r *raw) {
			r.say("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
		}, status: 503, says: "overloaded"},
		{name: "an encoding that nobody asked for", answer: func(r *raw) {
			r.say(strings.Replace(eventHead, "\r\n\r\n", "\r\nContent-Encoding: br\r\n\r\n", 1), chunked("xx"))
		}, status: 502, says: "encoding"},
		{name: "status 400", final: true, answer: func(r *raw) {
			r.say("HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nX-Request-Id: r1\r\nContent-Length: 41\r\n\r\n" + `{"error": {"message":"no such tool","x":1}}`[:41])
		}, status: 400, says: "no such tool"},
		{name: "status 401", final: true, answer: func(r *raw) {
			r.say("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n")
		}, status: 502, says: "upstream_auth"},
		{name: "status 402", final: true, answer: func(r *raw) {
			r.say("HTTP/1.1 402 Pay\r\nContent-Length: 0\r\n\r\n")
		}, status: 402, says: "upstream_spend"},
		{name: "status 404", final: true, answer: func(r *raw) {
			r.say("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
		}, status: 404, says: "model_not_found"},
	} {
		for _, body := range []string{streamed, whole} {
			kind := map[string]string{streamed: "stream", whole: "whole"}[body]
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				if kind == "whole" && (strings.Contains(c.name+c.says, "event") || strings.Contains(c.says, "finish_reason")) {
					t.Skip("streams only")
				}
				url, _ := serveRaw(t, c.answer)
				says := c.says
				if kind == "whole" && c.status == 502 && !strings.Contains("no answer upstream_auth upstream_broken encoding", says) {
					says = "upstream_broken"
				}
				l := openLab(t, []route.Member{tolerant(c.name, "up", url)})
				g := l.post(chat, body)
				if g.err != nil || g.StatusCode != c.status || !strings.Contains(g.body, says) || !strings.HasPrefix(g.body, `{"error":`) {
					t.Fatalf("status %d, error %v, body %s; want %d and %q", g.status(), g.err, g.body, c.status, says)
				}
				if g.Header.Get("X-Runner-Provider") != "up" || g.Header.Get("X-Runner-Rule") != "default" || g.Header.Get("X-Runner-Model") != "m" {
					t.Errorf("headers %v", g.Header)
				}
				if retry := g.Header.Get("Retry-After"); (retry == "") != (c.final || c.status == 502 && retry == "") {
					t.Errorf("Retry-After %q", retry)
				}

				// The same with a fallback that answers.
				spare, _ := serveRaw(t, answerWell)
				f := openLab(t, []route.Member{tolerant(c.name, "up", url), remote("spare", spare)}, fallback("up", "spare"))
				g = f.post(chat, strings.Replace(body, `"x"`, `"up"`, 1))
				if !c.final && (g.err != nil || g.StatusCode != 200 || !strings.Contains(g.body, "hello") || g.Header.Get("X-Runner-Provider") != "spare" || g.Header.Get("X-Runner-Rule") != "fallback") {
					t.Errorf("with a fallback: status %d, error %v, headers %v, body %s", g.status(), g.err, g.Header, g.body)
				}
				if c.final && g.StatusCode != c.status {
					t.Errorf("with a fallback that cannot help: status %d", g.StatusCode)
				}
			})
		}
	}
}

// answerWell answers a stream or a whole request properly.
func answerWell(r *raw) {
	if bytes.Contains(r.body, []byte(`"stream":true`)) {
		r.say(eventHead, chunked(role+hello+stop+counts+done))
		return
	}
	r.say(sized(answer))
}

const answer = `{"id":"c1", "object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}},"unknown":1.50}` + "\n"

// fallback makes the second member stand in for the first.
func fallback(first, second string) setting {
	return func(_ *gateway.Config, rc *route.Config) {
		e := rc.Table.Models[first]
		e.Fallback = second
		rc.Table.Models[first] = e
	}
}

func TestNoFallbackOnceTheClientHasSeenSomething(t *testing.T) {
	url, _ := serveRaw(t, func(r *raw) { r.say(eventHead); r.chunk(role); r.say("0\r\n\r\n") })
	spare, seen := serveRaw(t, answerWell)
	l := openLab(t, []route.Member{remote("up", url), remote("spare", spare)}, fallback("up", "spare"))
	g := l.post(chat, strings.Replace(streamed, `"x"`, `"up"`, 1))
	if g.err == nil || strings.Contains(g.body, "hello") || len(seen) != 0 {
		t.Errorf("error %v, body %q, %d requests at the fallback", g.err, g.body, len(seen))
	}
}

func TestAStreamIsMadeOfAnAnswerInOnePiece(t *testing.T) {
	url, _ := serveRaw(t, func(r *raw) { r.say(sized(answer)) })
	l := openLab(t, []route.Member{remote("up", url)})
	g := l.post(chat, streamed)
	for _, part := range []string{`"content":"hello"`, `"finish_reason":"stop"`, `"prompt_tokens":12`, done} {
		if g.err != nil || !strings.Contains(g.body, part) {
			t.Errorf("error %v, %q is missing in %s", g.err, part, g.body)
		}
	}
	if row := l.rows()[0]; row.Outcome != usage.OK || row.Usage != told {
		t.Errorf("ledger: %+v", row)
	}
}

func TestUsageIsAskedForAndKeptFromAClientThatDidNotAsk(t *testing.T) {
	const ask = `{"model":"x","stream":true,"messages":[]}`
	for _, c := range []struct{ name, send, want, body, sent string }{
		{"not asked", role + stop + counts + done, role + stop + done, ask,
			`{"stream_options":{"include_usage":true},"model":"m","stream":true,"messages":[]}`},
		{"asked", role + stop + counts + done, role + stop + counts + done, `{"model":"x","stream":true,"stream_options":{"include_usage":true}}`,
			`{"model":"m","stream":true,"stream_options":{"include_usage":true}}`},
		{"refused", role + stop + counts + done, role + stop + done, `{"model":"x","stream":true,"stream_options":{"a":1,"include_usage":false}}`,
			`{"model":"m","stream":true,"stream_options":{"a":1,"include_usage":true}}`},
		{"a usage chunk with choices stays", role + `data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":12}}` + "\n\n" + done, "", ask, ""},
		{"Azure's first chunk stays", `data: {"choices":[],"prompt_filter_results":[]}` + "\n\n" + role + stop + done, "", ask, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, requests := serveRaw(t, func(r *raw) { r.say(eventHead, chunked(c.send)) })
			l := openLab(t, []route.Member{remote("up", url)})
			if c.want == "" {
				c.want = c.send
			}
			if g := l.post(chat, c.body); g.err != nil || g.body != c.want {
				t.Errorf("error %v, body\n%s\nwant\n%s", g.err, g.body, c.want)
			}
			if sent := string(wait(t, "request", requests).body); c.sent != "" && sent != c.sent {
				t.Errorf("sent %s\nwant %s", sent, c.sent)
			}
		})
	}
}

func (g got) status() int {
	if g.Response == nil {
		return 0
	}
	return g.StatusCode
}
