package web

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/progress"
)

// newProgressSite returns a site whose one project is a note in a folder of its own.
func newProgressSite(t *testing.T, note string) (*Site, string) {
	t.Helper()
	r, dir := newRig(t), t.TempDir()
	file := filepath.Join(dir, "garden.md")
	if err := os.WriteFile(file, []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	c := r.Config
	c.Progress = progress.New(progress.Config{DB: r.db, Dir: dir,
		List: func(context.Context) ([]string, error) { return []string{"garden.md"}, nil },
		Read: func(_ context.Context, p string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, p)) }})
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return site, file
}

func TestTheProgressPageDrawsAndTicks(t *testing.T) {
	site, file := newProgressSite(t, "## <Beds>\n- [x] Measure\n- [ ] Dig <b>\n  to a foot\n## Planting\nafter: [[#<Beds>]], [[#Nothing]]\ngate: alone for a week\n- [ ] Tomatoes\n")
	ask := func(method, path string, form url.Values) (int, string, string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		site.ServeHTTP(w, req)
		return w.Code, w.Body.String(), w.Header().Get("Location")
	}
	code, body, _ := ask("GET", "/progress", nil)
	contains(t, body, `<svg class="gantt"`, "&lt;Beds&gt;", "1 of 2, open", "waits for &lt;Beds&gt;", "Gate: alone for a week", "to a foot", `aria-current="page"`,
		"line 5: after: [[#Nothing]] leads to no phase")
	if code != 200 || strings.Contains(body, "<Beds>") || strings.Contains(body, "<b>") && strings.Contains(body, "Dig <b>") {
		t.Errorf("%d: a note's markup is in the page", code)
	}
	_, body, _ = ask("GET", "/api/progress", nil)
	contains(t, body, `"state": "waiting"`, `"ticks": 2`)
	code, _, to := ask("POST", "/progress/tick", url.Values{"path": {"garden.md"}, "line": {"3"}, "text": {"Dig <b>"}, "done": {"true"}, "at": {"phase-0"}})
	if text, _ := os.ReadFile(file); code != 303 || to != "/progress#phase-0" || !strings.Contains(string(text), "- [x] Dig <b>") {
		t.Errorf("%d to %q, %q", code, to, text)
	}
	for want, form := range map[int]url.Values{
		409: {"path": {"garden.md"}, "line": {"3"}, "text": {"Dug"}, "done": {"true"}},
		404: {"path": {"../garden.md"}, "line": {"3"}, "text": {"Dig <b>"}, "done": {"true"}},
		400: {"path": {"garden.md"}, "line": {"three"}},
	} {
		if code, _, _ := ask("POST", "/progress/tick", form); code != want {
			t.Errorf("%v: %d, want %d", form, code, want)
		}
	}
}

func TestTheWayUpIsDrawnFromTheDays(t *testing.T) {
	if wayUp(nil) != "" || wayUp([]progress.Day{{Day: "2026-03-01", Done: 1, Total: 2}}) != "" {
		t.Error("one day is no way")
	}
	got := string(wayUp([]progress.Day{{Day: "2026-03-01", Done: 0, Total: 4, From: progress.FromSeen}, {Day: "2026-03-11", Done: 4, Total: 4, From: progress.FromSeen}}))
	contains(t, got, `class="done" d="M2.0 46.0H238.0V2.0"`, "From 2026-03-01 to 2026-03-11: 0, then 4 of 4 done")
	up := progress.Up{Says: "git is not installed, so commits are not read", Days: []progress.Day{{Day: "2026-03-01", Done: 0, Total: 4, From: progress.FromDates}, {Day: "2026-03-06", Done: 2, Total: 4, From: progress.FromDates}, {Day: "2026-03-11", Done: 4, Total: 4, From: progress.FromSeen}}}
	contains(t, string(wayUp(up.Days)), `class="done guess" d="M2.0 46.0H120.0V24.0"`, `class="done" d="M120.0 24.0H238.0V2.0"`)
	if got := comesFrom(up); got != "From 2026-03-01 the dates in tasks, from 2026-03-11 what was seen each day. Git is not installed, so commits are not read." {
		t.Error(got)
	}
	if got := comesFrom(progress.Up{Days: up.Days[2:]}); got != "" {
		t.Error(got)
	}
}

func TestAProjectsWayUpBeginsBeforeItWasSeen(t *testing.T) {
	today := daysAgo(0)
	site, _ := newProgressSite(t, "# Garden\n## Beds\n- [x] Measure ✅ "+daysAgo(20)+"\n- [x] Dig ➕ "+daysAgo(15)+" ✅ "+daysAgo(10)+"\n- [ ] Plant\n")
	get := func(path string) string {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Body.String()
	}
	page, answer := get("/progress"), get("/api/progress")
	if daysAgo(0) != today {
		t.Skip("midnight came meanwhile")
	}
	contains(t, page, `class="burnup"`, `class="done guess"`, "From "+daysAgo(20)+" the dates in tasks, from "+daysAgo(0)+" what was seen each day.")
	var board progress.Board
	if err := json.Unmarshal([]byte(answer), &board); err != nil {
		t.Fatal(err)
	}
	if len(board.Ups) != 1 || board.Ups[0].Project != "Garden" || board.Ups[0].Path != "garden.md" || len(board.Ups[0].Days) != 4 {
		t.Fatalf("%+v", board.Ups)
	}
	for i, want := range []progress.Day{{Day: daysAgo(20), Done: 1, Total: 2, From: progress.FromDates}, {Day: daysAgo(15), Done: 1, Total: 3, From: progress.FromDates},
		{Day: daysAgo(10), Done: 2, Total: 3, From: progress.FromDates}, {Day: daysAgo(0), Done: 2, Total: 3, From: progress.FromSeen}} {
		if got := board.Ups[0].Days[i]; got != want {
			t.Errorf("%+v, not %+v", got, want)
		}
	}
}

func daysAgo(n int) string { return time.Now().AddDate(0, 0, -n).Format(time.DateOnly) }
