package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

type proposal struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// tooledRig is a rig whose answers may look and write.
func tooledRig(t testing.TB) (*rig, *toolbox.Box) {
	t.Helper()
	withTools(t)
	defer func() { rigTools = nil }()
	r := durableRig(t)
	r.Tools.Tell(func(c toolbox.Call) {
		if err := r.Chats.Decided(context.Background(), c.Run); err != nil {
			t.Error(err)
		}
	}, nil)
	return r, r.Tools
}

// withTools gives the next rigs two tools.
func withTools(t testing.TB) {
	rigTools = func(d *db.DB, router llm.Provider) (*toolbox.Box, llm.Provider) {
		box, err := toolbox.Open(t.Context(), d, toolbox.Config{})
		if err != nil {
			t.Fatal(err)
		}
		write := toolbox.Make(toolbox.Tool{Name: "vault_write", Description: "Writes a note of the person's vault.", Effects: true},
			func(context.Context, toolbox.Call, proposal) (toolbox.Result, error) {
				return toolbox.Result{Text: "Written."}, nil
			})
		write.Preview = func(_ context.Context, raw json.RawMessage) (toolbox.Preview, error) {
			return toolbox.Preview{Text: "--- garden.md\n+++ garden.md (proposed)\n@@ -1,3 +1,3 @@\n # Garden\n \n-Roses.\n+Ferns <b>want</b> shade."}, nil
		}
		look := toolbox.Make(toolbox.Tool{Name: "web_search", Description: "Searches the web.", Policy: toolbox.Allow, Outside: true},
			func(context.Context, toolbox.Call, struct {
				Query string `json:"query"`
			}) (toolbox.Result, error) {
				return toolbox.Result{Text: "1. On ferns <script>alert(1)</script>"}, nil
			})
		if err := box.Add(write, look); err != nil {
			t.Fatal(err)
		}
		return box, loop.New(router, box, loop.Limits{})
	}
}

func (x *play) call(index int, name, arguments string) {
	x.say <- llm.Event{Call: &llm.CallDelta{Index: index, ID: name, Name: name}}
	x.say <- llm.Event{Call: &llm.CallDelta{Index: index, Arguments: arguments}}
}

// A program that was given tools has a token, and must not allow its own calls with it.
func TestAProgramAllowsNoCall(t *testing.T) {
	r, box := tooledRig(t)
	c, err := box.Submit(t.Context(), toolbox.Wish{Tool: "vault_write", Arguments: `{"path":"garden.md","text":"x"}`})
	if err != nil || c.State != toolbox.Waiting {
		t.Fatalf("%+v, %v", c, err)
	}
	const token = "editor-0123456789"
	for _, decides := range []bool{false, true} {
		config := guard.Config{Listen: "127.0.0.1:8080", Password: "correct horse", Tokens: map[string]string{"editor": token}}
		want := http.StatusForbidden
		if decides {
			config.Deciders, want = []string{"editor"}, http.StatusOK
		}
		g, err := guard.New(config)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/tools/policy?tool=vault_write&policy=allow", "/tools/calls/1/approve", "/tools/calls/1/deny", "/api/tools/calls/1/deny", "/api/tools/calls/1/approve"} {
			if decides && path != "/api/tools/calls/1/approve" {
				continue
			}
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080"+path, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			g.Wrap(r.Site).ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("%s with a token that decides (%v): %d", path, decides, w.Code)
			}
		}
	}
	if c, err = box.One(t.Context(), c.ID); err != nil || c.State != toolbox.Approved {
		t.Errorf("%+v, %v", c, err)
	}
	if all, err := box.Entries(t.Context(), 0); err != nil || all[0].Chosen {
		t.Errorf("a policy was set: %+v, %v", all, err)
	}
}

func TestTheToolsPageShowsWhatWaitsAndChangesPolicies(t *testing.T) {
	r, box := tooledRig(t)
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get(r.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		buf := make([]byte, 1<<20)
		for n := 1; n > 0; {
			n, _ = resp.Body.Read(buf)
			b.Write(buf[:n])
		}
		return b.String()
	}
	post := func(path string, form url.Values, want int) string {
		t.Helper()
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := client.PostForm(r.server.URL+path, form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("POST %s: %s, want %d", path, resp.Status, want)
		}
		return resp.Header.Get("Location")
	}
	if page := get("/tools"); !strings.Contains(page, "No tool has been called yet") || !strings.Contains(page, `href="/tools" aria-current="page"`) {
		t.Error(page)
	}
	at := post("/chats", url.Values{"text": {"Write about ferns"}, "tools": {"1"}}, http.StatusSeeOther)
	x := <-r.puppet.asked
	x.call(0, "vault_write", `{"path":"garden.md","text":"x"}`)
	x.say <- llm.Event{Finish: llm.FinishTools}
	var waits []toolbox.Call
	for len(waits) == 0 {
		changed := box.Changed()
		var err error
		if waits, err = box.Waits(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(waits) == 0 {
			<-changed
		}
	}
	page := get("/tools")
	if !strings.Contains(page, "Allow this call") || !strings.Contains(page, "Ferns &lt;b&gt;want&lt;/b&gt; shade.") || strings.Contains(page, "<b>want") {
		t.Error(page)
	}
	post("/tools/calls/999/approve", nil, http.StatusNotFound)
	post("/tools/calls/1/deny", url.Values{"back": {"//evil.example/"}}, http.StatusSeeOther)
	post("/tools/calls/1/approve", nil, http.StatusConflict)
	x = <-r.puppet.asked
	x.text("Then not.")
	x.done()
	post("/tools/policy", url.Values{"tool": {"vault_write"}, "policy": {"deny"}}, http.StatusSeeOther)
	if to := post("/tools/policy", url.Values{"tool": {"web_search"}, "policy": {"ask"}, "chat": {"1"}}, http.StatusSeeOther); to != "/tools?chat=1" {
		t.Errorf("it leads to %s", to)
	}
	post("/tools/policy", url.Values{"tool": {"web_search"}, "policy": {"maybe"}}, http.StatusUnprocessableEntity)
	var api struct {
		Tools []struct{ Name, Policy string }
	}
	if err := json.Unmarshal([]byte(get("/api/tools?chat=1")), &api); err != nil || len(api.Tools) != 2 || api.Tools[0].Policy != "deny" || api.Tools[1].Policy != "ask" {
		t.Errorf("%+v, %v", api, err)
	}
	if page := get("/tools?chat=1"); !strings.Contains(page, "What models may do here") {
		t.Error(page)
	}
	if page := get(strings.Split(at, "#")[0]); !strings.Contains(page, "vault_write") || !strings.Contains(page, "denied") || !strings.Contains(page, `name="tools" value="1" checked`) {
		t.Error(page)
	}
}

func TestADifferenceIsShownLineByLine(t *testing.T) {
	for _, tt := range []struct {
		name, preview, arguments string
		want                     []shownLine
	}{
		{"a change", "--- a.md\n+++ a.md (proposed)\n@@ -1,2 +1,2 @@\n # A\n-x\n+y\n", "", []shownLine{
			{"", "--- a.md\n"}, {"", "+++ a.md (proposed)\n"}, {"", "@@ -1,2 +1,2 @@\n"}, {"", " # A\n"}, {"cut", "-x\n"}, {"add", "+y\n"}}},
		{"a new note, whose list is no change", "A new note, a.md:\n\n- milk\n+ bread", "", []shownLine{
			{"", "A new note, a.md:\n"}, {"", "\n"}, {"", "- milk\n"}, {"", "+ bread"}}},
		{"arguments, in an order that stays", "", `{"url": "u", "b": 2, "a": [1]}`, []shownLine{{"", "a: [1]\n"}, {"", "b: 2\n"}, {"", "url: \"u\"\n"}}},
		{"arguments that are none", "", `{"url"`, []shownLine{{"", `{"url"`}}},
	} {
		c := shownCall{Call: toolbox.Call{Preview: tt.preview, Arguments: json.RawMessage(tt.arguments)}}
		if got := c.Lines(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

func TestTheCornerShowsMachinesOnly(t *testing.T) {
	r := newRig(t)
	r.Router = route.New(route.Config{Ledger: r.ledger, Book: r.book, Members: []route.Member{
		{Name: "contabo", Kind: "ollama", Provider: r.puppet}, {Name: "vault", Kind: "vault", Provider: r.puppet}}})
	if all := r.where(); len(all) != 1 || all[0].Name != "contabo" {
		t.Errorf("%+v", all)
	}
}
