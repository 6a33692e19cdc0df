package web

import (
	"context"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	got := string(wayUp([]progress.Day{{Day: "2026-03-01", Done: 0, Total: 4}, {Day: "2026-03-11", Done: 4, Total: 4}}))
	contains(t, got, `M2.0 46.0H238.0V2.0`, "From 2026-03-01 to 2026-03-11: 0, then 4 of 4 done")
}
