package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
)

// found asks the palette's endpoint, and returns what it lists as "kind: name -> where".
func (r *rig) found(q string) string {
	r.t.Helper()
	_, body := r.get("/api/find?q=" + q)
	var all []target
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		r.t.Fatalf("%v in %s", err, body)
	}
	var out strings.Builder
	for _, x := range all {
		out.WriteString(x.Kind + ": " + x.Name + " -> " + x.Href + x.Post + "\n")
	}
	return out.String()
}

func TestThePaletteFindsPagesActionsChatsJobsAndModels(t *testing.T) {
	r := withQueue(t)
	r.answered("Where are the photos?", "In the slow bucket.")
	if _, _, err := r.Jobs.Submit(t.Context(), jobs.Spec{Prompt: "Sort the photos of <b>May</b>"}, ""); err != nil {
		t.Fatal(err)
	}
	(<-r.puppet.asked).done()
	contains(t, r.found(""), "page: Queue -> /jobs\n", "page: Health -> /health\n", "action: New chat -> /\n", "action: New job -> /jobs/new\n", "chat: Where are the photos? -> /chats/1\n")
	if got, want := r.found("photos"), "chat: Where are the photos? -> /chats/1\njob: Sort the photos of <b>May</b> -> /jobs/1\n"; got != want {
		t.Errorf("got %s", got)
	}
	if got, want := r.found("JOB+new"), "action: New job -> /jobs/new\n"; got != want {
		t.Errorf("got %s", got)
	}
	contains(t, r.found("gemma"), "model: gemma4:27b -> /?model=gemma4%3A27b\n")
	if got := r.found("nothing+of+this"); got != "" {
		t.Errorf("got %s", got)
	}

	// A model that is found begins a chat; one that is not there any more is not chosen.
	_, body := r.get("/?model=gemma4%3A27b&ask=Hello+%3Cb%3E")
	contains(t, body, `<option value="gemma4:27b" selected>`, "Hello &lt;b&gt;</textarea>")
	if _, body = r.get("/?model=gone"); strings.Contains(body, "gone") || strings.Contains(body, " selected>") {
		t.Error("a model that is not there is chosen")
	}
}

func TestTheWayOutIsShownWhereThereIsALogin(t *testing.T) {
	r := newRig(t)
	if _, body := r.get("/"); strings.Contains(body, "/logout") || strings.Contains(r.found("out"), "/logout") {
		t.Error("there is a way out, and nobody logged in")
	}
	r.LogOut = true
	if code, body := r.get("/"); code != http.StatusOK || strings.Count(body, `<form class="logout" method="post" action="/logout"><button>`) != 2 {
		t.Error("there is no way out of a page, on a screen and on a phone")
	}
	contains(t, r.found("log+out"), "action: Log out -> /logout\n")
}

func TestAPhoneHasFourPlacesAndTheRestBehindMore(t *testing.T) {
	r := withQueue(t)
	_, body := r.get("/health") // chat, queue, usage and health are on the bar
	bar, rest, _ := strings.Cut(body, `<details class="pop"><summary>`)
	if strings.Count(bar, `<a href="/health" aria-current="page">`) != 1 || strings.Contains(rest, `<a href="/health"`) || !strings.Contains(rest, `action="/theme"`) {
		t.Error(bar)
	}
	f := frame{Places: []place{{Nav: "chat"}, {Nav: "queue"}, {Nav: "library"}, {Nav: "agents"}, {Nav: "memory", Here: true}, {Nav: "health"}}}
	if len(f.Bar()) != 4 || len(f.Rest()) != 2 || !f.Inside() {
		t.Errorf("%v, %v, %v", f.Bar(), f.Rest(), f.Inside())
	}
}

// A note is found by a part of its name while it is typed, and by what it says once a word is whole.
func TestThePaletteFindsNotesByPartsOfTheirNames(t *testing.T) {
	r := newRig(t)
	l, err := library.Open(t.Context(), r.db, library.Embedded("made up", fstest.MapFS{
		"house/Übergabe Küche.md": {Data: []byte("The keys are with Mr Kranz.\n")}, "boiler.md": {Data: []byte("# Boiler\n\nServiced in May.\n")}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Library = l
	if r.Site, err = New(r.Config); err != nil {
		t.Fatal(err)
	}
	r.server.Config.Handler = r.Site
	for q, want := range map[string]string{"boi": "note: Boiler -> /notes/boiler.md\n", "überg": "note: Übergabe Küche -> /notes/house/%C3%9Cbergabe%20K%C3%BCche.md\n",
		"kranz": "note: Übergabe Küche -> /notes/house/%C3%9Cbergabe%20K%C3%BCche.md\n", "kran": ""} {
		if got := r.found(url.QueryEscape(q)); got != want {
			t.Errorf("%s: %s", q, got)
		}
	}
}
