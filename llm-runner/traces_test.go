package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/internal/port"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

// A traced is a house whose server can be killed, with a provider and a receiver of traces that cannot.
type traced struct {
	t         *testing.T
	dir, addr string
	upstream  string // the provider
	cmd       *exec.Cmd
	receiver  *fake.OTLP
}

const tracedConfig = `
vault: {path: %s/vault}
providers:
  groq: {kind: openai, url: %s/openai/v1, key: env:GROQ_KEY}
routes: {default: {provider: groq, model: llama}}
prices: {groq: {input: 1, output: 2}}
traces:
  endpoint: %s
  headers: {Authorization: env:OTLP_AUTHORIZATION}
  %s
`

func newTraced(t *testing.T, answers script.Script, more string) *traced {
	t.Helper()
	answers.Key = "sk-planted"
	provider, err := fake.New("groq", answers)
	if err != nil {
		t.Fatal(err)
	}
	h := &traced{t: t, dir: t.TempDir()}
	if h.receiver, err = fake.NewOTLP(script.Script{Key: "tok-planted"}); err != nil {
		t.Fatal(err)
	}
	up, traces := httptest.NewServer(provider), httptest.NewServer(h.receiver)
	t.Cleanup(up.Close)
	t.Cleanup(up.CloseClientConnections)
	t.Cleanup(traces.Close)
	t.Cleanup(traces.CloseClientConnections)
	h.upstream = up.URL
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	h.addr = fmt.Sprintf("127.0.0.1:%d", free)
	h.put("runner.yaml", fmt.Sprintf(tracedConfig, h.dir, up.URL, traces.URL, more))
	h.put("vault/note.md", "# Note\n\nThe hedgehog is buried at dawn.\n")
	t.Cleanup(h.kill)
	return h
}

func (h *traced) put(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *traced) start() {
	h.t.Helper()
	h.cmd = exec.Command("llm-runner", "serve", "--config", h.dir+"/runner.yaml", "--data", h.dir+"/data", "--listen", h.addr)
	h.cmd.Env = append(os.Environ(), "GROQ_KEY=sk-planted", "OTLP_AUTHORIZATION=Bearer tok-planted", "OLLAMA_HOST=127.0.0.1:1")
	h.cmd.Stderr = &testLog{h.t}
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.await("/health", func([]byte) bool { return true })
}

type testLog struct{ t *testing.T }

func (l *testLog) Write(b []byte) (int, error) { l.t.Logf("%s", b); return len(b), nil }

func (h *traced) kill() {
	if h.cmd != nil {
		h.cmd.Process.Kill() //nolint:errcheck // it may be gone
		h.cmd.Wait()         //nolint:errcheck // it was killed
		h.cmd = nil
	}
}

// await asks until the answer is as wanted, and returns it.
func (h *traced) await(path string, is func([]byte) bool) []byte {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := h.get(path)
		if err == nil && is(out) {
			return out
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: %v: %s", path, err, out)
		}
		time.Sleep(20 * time.Millisecond) // polling with a deadline: the process has no other way to tell us
	}
}

func (h *traced) get(path string) ([]byte, error) {
	resp, err := http.Get("http://" + h.addr + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// page is what a browser is shown.
func (h *traced) page(path string) string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+h.addr+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *traced) spans(is func([]fake.Span) bool) []fake.Span {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	if !h.receiver.Await(ctx, is) {
		h.t.Fatalf("the receiver has %d spans: %+v", len(h.receiver.Spans()), h.receiver.Spans())
	}
	return h.receiver.Spans()
}

func count(all []fake.Span, name string) (n int) {
	for _, s := range all {
		if s.Name == name {
			n++
		}
	}
	return n
}

func state(want string) func([]byte) bool {
	return func(b []byte) bool {
		var j struct{ State string }
		return json.Unmarshal(b, &j) == nil && j.State == want
	}
}

// A file is dropped into the vault, its job is held, the program is killed, killed again while it answers, and answers in its third life.
func TestAJobIsOneTraceFromTheFolderToTheAnswerThroughTwoDeaths(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	h := newTraced(t, script.Script{Models: []string{"llama"}, Reply: []script.Rule{{Text: "They sleep through the winter, canary-answer."}},
		Faults: []script.Fault{{Kind: "429", On: []int{1}, Wait: 8 * time.Second, Message: "canary-refusal"}, {Kind: script.StallBeforeHeaders, On: []int{2}}}}, "")
	h.start()
	h.put("vault/_queue/hedgehogs.md", "What do hedgehogs do, canary-question?\n")
	h.await("/api/jobs/1", state("held"))
	h.spans(func(all []fake.Span) bool { return count(all, "chat llama") == 1 && count(all, "run") == 1 })
	h.kill()
	h.start()
	h.await("/api/jobs/1", state("running"))
	h.spans(func(all []fake.Span) bool { return count(all, "held") == 1 })
	h.kill()
	h.start()
	var job struct {
		Usage struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
		Cost int64 `json:"cost_micro_usd"`
	}
	if err := json.Unmarshal(h.await("/api/jobs/1", state("done")), &job); err != nil {
		t.Fatal(err)
	}
	all := h.spans(func(all []fake.Span) bool { return count(all, "job text") == 1 })
	byID := map[string]fake.Span{}
	var root fake.Span
	for _, s := range all {
		if byID[s.SpanID] = s; s.Name == "job text" {
			root = s
		}
	}
	var input, output int64
	for _, s := range all {
		if s.TraceID != root.TraceID {
			t.Errorf("%s is in another trace: %+v", s.Name, s)
		}
		// Of the life that was killed while it answered, what was under way is missing; all that came has its place.
		if _, known := byID[s.ParentID]; !known && s.SpanID != root.SpanID {
			t.Errorf("%s hangs below nothing: %+v", s.Name, s)
		}
		if n, ok := s.Attributes["gen_ai.usage.input_tokens"].(int64); ok {
			input += n
			output += s.Attributes["gen_ai.usage.output_tokens"].(int64)
		}
		if s.Start.Before(root.Start.Add(-time.Millisecond)) || s.End.After(root.End.Add(time.Second)) {
			t.Errorf("%s is not within the job: %+v", s.Name, s)
		}
	}
	if root.ParentID != "" || root.Attributes["llm_runner.job.id"] != int64(1) || root.Attributes["llm_runner.state"] != "done" || root.End.Sub(root.Start) < 2*time.Second {
		t.Errorf("the root is %+v", root)
	}
	if count(all, "chat llama") != 2 || count(all, "run") != 2 || count(all, "step") != 2 || count(all, "held") != 1 || count(all, "queued") < 2 {
		t.Errorf("spans: %+v", all)
	}
	out, err := exec.CommandContext(t.Context(), "llm-runner", "usage", "--recent", "10", "--json", "--config", h.dir+"/runner.yaml", "--data", h.dir+"/data").Output()
	if err != nil {
		t.Fatal(err)
	}
	var books struct {
		Attempts []struct {
			Usage struct {
				Input  *int64 `json:"input_tokens"`
				Output *int64 `json:"output_tokens"`
			} `json:"usage"`
		} `json:"attempts"`
	}
	if err := json.Unmarshal(out, &books); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var in, outs int64
	for _, row := range books.Attempts {
		if row.Usage.Input != nil {
			in, outs = in+*row.Usage.Input, outs+*row.Usage.Output
		}
	}
	if input == 0 || input != job.Usage.Input || output != job.Usage.Output || in != input || outs != output {
		t.Errorf("spans say %d and %d tokens, the job %+v, the ledger %d and %d: %s", input, output, job.Usage, in, outs, out)
	}
	for _, s := range all {
		if s.Name == "held" && (s.Attributes["llm_runner.hold.waits_for"] != "groq" || s.Attributes["llm_runner.hold.until"] == nil) {
			t.Errorf("%+v", s)
		}
		if cost, ok := s.Attributes["llm_runner.cost_usd"].(float64); s.Name == "job text" && (!ok || int64(cost*1e6+0.5) != job.Cost) {
			t.Errorf("the job's span says %v, the job %d micro-USD", cost, job.Cost)
		}
	}
	for _, secret := range []string{"planted", "canary", "hedgehog"} {
		if strings.Contains(string(h.receiver.Bytes()), secret) {
			t.Errorf("%q was sent to the receiver", secret)
		}
	}
}

func (h *traced) post(path, kind, body string, header ...string) (status int, answer string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// mcp has a tool called as an MCP client does, over stdin and stdout.
func (h *traced) mcp(tool, arguments string) (string, error) {
	cmd := exec.CommandContext(h.t.Context(), "llm-runner", "mcp", "--config", h.dir+"/runner.yaml", "--data", h.dir+"/data")
	cmd.Env = append(os.Environ(), "GROQ_KEY=sk-planted", "OTLP_AUTHORIZATION=Bearer tok-planted", "OLLAMA_HOST=127.0.0.1:1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	said := make(chan struct{})
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	lines := bufio.NewScanner(answers)
	lines.Buffer(nil, 1<<20)
	go func() {
		defer close(said)
		for lines.Scan() {
			if out.WriteString(lines.Text() + "\n"); strings.Contains(lines.Text(), `"id":2`) {
				return
			}
		}
	}()
	fmt.Fprintln(in, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	fmt.Fprintf(in, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":%q,"arguments":%s}}`+"\n", tool, arguments)
	select {
	case <-said:
	case <-time.After(20 * time.Second):
		err = errors.New("no answer")
	}
	in.Close()
	cmd.Wait() //nolint:errcheck // it was told to end
	return out.String(), err
}

// below finds the span of a name that hangs below another, at whatever depth.
func below(t *testing.T, all []fake.Span, top fake.Span, name string) fake.Span {
	t.Helper()
	byID := map[string]fake.Span{}
	for _, s := range all {
		byID[s.SpanID] = s
	}
	for _, s := range all {
		if s.Name != name || s.TraceID != top.TraceID {
			continue
		}
		for at := s; at.SpanID != ""; at = byID[at.ParentID] {
			if at.SpanID == top.SpanID {
				return s
			}
		}
	}
	t.Errorf("nothing named %q hangs below %s: %+v", name, top.Name, all)
	return fake.Span{}
}

func TestTurnsToolsSearchesAndCallersTracesAreSpans(t *testing.T) {
	h := newTraced(t, script.Script{Models: []string{"llama"}, Reply: []script.Rule{
		{Match: "hedgehog is buried", Text: "I looked."},
		{Match: "use a tool", Calls: []script.Call{{Name: "vault_search", Arguments: `{"query":"hedgehog"}`}}},
		{Match: "library", Calls: []script.Call{{Name: "library_search", Arguments: `{"query":"hedgehog"}`}}},
		{Text: "Nothing to say."}}}, "content: false")
	h.start()
	const caller, id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"
	status, answer := h.post("/v1/chat/completions", "application/json", `{"model":"llama","messages":[{"role":"user","content":"hello"}]}`, "Traceparent", caller)
	if status != 200 {
		t.Fatal(status, answer)
	}
	if status, answer = h.post("/api/jobs", "application/json", `{"prompt":"look into the library","tools":["library_search"]}`, "Traceparent", caller); status != 202 {
		t.Fatal(status, answer)
	}
	if status, answer = h.post("/chats", "application/x-www-form-urlencoded", "text=a+word", "Origin", "http://"+h.addr); status != 303 {
		t.Fatal(status, answer)
	}
	h.spans(func(all []fake.Span) bool {
		return count(all, "job text") == 1 && count(all, "turn") == 1 && count(all, "POST /v1/chat/completions") == 1
	})
	out, err := h.mcp("library_search", `{"query":"hedgehog"}`)
	if err != nil || !strings.Contains(out, "note.md") {
		t.Fatalf("%v: %s", err, out)
	}
	all := h.spans(func(all []fake.Span) bool {
		return slices.ContainsFunc(all, func(s fake.Span) bool { return s.Name == "execute_tool library_search" && s.ParentID == "" })
	})
	for _, s := range all {
		switch s.Name {
		case "POST /v1/chat/completions":
			below(t, all, s, "chat llama")
			if s.TraceID != id || s.ParentID != "00f067aa0ba902b7" || s.Kind != "server" {
				t.Errorf("%+v", s)
			}
		case "job text":
			tool := below(t, all, s, "execute_tool library_search")
			below(t, all, tool, "retrieval")
			if s.TraceID != id || s.ParentID != "00f067aa0ba902b7" || tool.Attributes["gen_ai.tool.name"] != "library_search" {
				t.Errorf("%+v, %+v", s, tool)
			}
		case "turn":
			below(t, all, s, "chat llama")
			if s.TraceID == id || s.ParentID != "" || s.Attributes["gen_ai.conversation.id"] != "1" {
				t.Errorf("%+v", s)
			}
		}
	}
	if page := h.page("/health"); !strings.Contains(page, "The receiver has taken ") {
		t.Errorf("the page says nothing of traces: %s", page)
	}
	asked, err := http.Get(h.upstream + "/_fake/requests")
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Body.Close()
	if b, err := io.ReadAll(asked.Body); err != nil || strings.Contains(strings.ToLower(string(b)), "traceparent") || strings.Contains(string(b), id) {
		t.Errorf("the provider was told of the trace: %v", err)
	}
}

func TestAnAgentsRunIsATrace(t *testing.T) {
	h := newTraced(t, script.Script{Models: []string{"llama"}, Reply: []script.Rule{{Match: "hedgehog", Text: "It sleeps."}}}, "content: false")
	h.put("vault/agents/keeper.md", "---\nmodel: llama\n---\nWhat does the hedgehog do?\n")
	h.start()
	if status, answer := h.post("/api/agents/keeper/run", "application/json", `{}`); status != 200 {
		t.Fatal(status, answer)
	}
	all := h.spans(func(all []fake.Span) bool { return count(all, "invoke_agent keeper") == 1 })
	i := slices.IndexFunc(all, func(s fake.Span) bool { return s.Name == "invoke_agent keeper" })
	top := all[i]
	chat := below(t, all, top, "chat llama")
	if top.ParentID != "" || top.Attributes["gen_ai.agent.name"] != "keeper" || top.Attributes["gen_ai.operation.name"] != "invoke_agent" || fmt.Sprint(top.Attributes["llm_runner.agent.run"]) != "1" ||
		top.Attributes["llm_runner.cost_usd"] == nil || chat.Attributes["llm_runner.purpose"] != "agent" {
		t.Errorf("%+v, %+v", top, chat)
	}
}

// With content, the owner's question is told; what no cloud provider may see is not, though a machine at home reads it and answers from it.
func TestContentNeverHoldsWhatIsNeverSent(t *testing.T) {
	h := newTraced(t, script.Script{Models: []string{"llama"}, Reply: []script.Rule{
		{Match: "buried at dawn", Text: "It is buried at dawn [1], says the note."}, {Text: "I know the key sk-planted."}}}, "content: true")
	raw, err := os.ReadFile(filepath.Join(h.dir, "runner.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(raw), "/vault}", "/vault, never_send: [note.md], model: llama}", 1)
	config = strings.Replace(config, "key: env:GROQ_KEY", "key: env:GROQ_KEY, health: \""+h.upstream+"/_fake/requests\"", 1) // a machine at home
	h.put("runner.yaml", config)
	h.start()
	h.await("/api/library", func(b []byte) bool { return strings.Contains(string(b), `"notes": 1`) })
	for i, body := range []string{`{"model":"vault","prompt":"When is the hedgehog buried, canary-question?"}`, `{"model":"llama","prompt":"What do you know, canary-plain?"}`} {
		if status, answer := h.post("/api/jobs", "application/json", body); status != 202 {
			t.Fatal(status, answer)
		}
		job := h.await(fmt.Sprintf("/api/jobs/%d", i+1), state("done"))
		if i == 0 && !strings.Contains(string(job), "buried at dawn") {
			t.Fatalf("the note was not read: %s", job)
		}
	}
	all := h.spans(func(all []fake.Span) bool { return count(all, "job text") == 2 })
	bytes := string(h.receiver.Bytes())
	for _, secret := range []string{"buried at dawn", "planted"} {
		if strings.Contains(bytes, secret) {
			t.Errorf("%q was sent: %+v", secret, all)
		}
	}
	for _, told := range []string{"canary-question", "canary-plain", "(left out)", "I know the key (hidden)."} {
		if !strings.Contains(bytes, told) {
			t.Errorf("%q was not sent: %+v", told, all)
		}
	}
}
