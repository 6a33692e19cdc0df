//go:build prove

package web

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/progress"
	"home.arpa/lab/llm-runner/test/browsertest"
)

// Two projects, of which one hands over to the other on the longest way, with a gate of twelve sign-offs.
const (
	gardenProject = "---\ntype: project\ntitle: Garden\n---\n## Beds\n- [x] Measure\n- [x] Dig\n## Planting\nafter: [[#Beds]]\n- [x] Tomatoes ([receipt](https://example.org/r))\n- [ ] A bed whose description is much longer than a phone is wide, so that it has to go on in a second line\n  - [ ] Strings\n"
	houseProject  = "---\ntype: project\ntitle: House\n---\n## Kitchen\nafter: [[garden#Planting]]\n- [ ] Shelves\n## Before the wipe\nafter: [[#Kitchen]]\ngate: nothing is lost when the machine is wiped\n" +
		"- [x] Backups restored on another machine\n- [ ] Keys printed\n- [ ] Kit at the neighbours\n- [ ] 4\n- [ ] 5\n- [ ] 6\n- [ ] 7\n- [ ] 8\n- [ ] 9\n- [ ] 10\n- [ ] 11\n- [-] 12\n"
)

// wholeRig is a rig that has everything, and something of each kind. The second value are its pages: the paths that show a template.
func wholeRig(t *testing.T) (*rig, map[string][]string) {
	t.Helper()
	withTools(t)
	withMemory()
	defer func() { rigTools, rigMemory = nil, nil }()
	r := newRig(t)
	r.said(t)
	r.LogOut = true

	vault := t.TempDir()
	for name, text := range map[string]string{
		"garden.md": gardenProject, "house.md": houseProject, "bad.md": "\xff", "handbook/restore it.md": restoreNote,
		"pond/pond.md": "# Pond\n\nThe pond is drained in March, before the toads come.\n",
		"pond/what-was-measured-at-the-pond-each-spring-without-a-space-in-its-name.md": "# Teichwasserqualitätsmessungsprotokollzusammenfassung\n\nThe water of the pond is clear.\n",
	} {
		path := filepath.Join(vault, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source, err := library.Dir(vault)
	if err != nil {
		t.Fatal(err)
	}
	private, faults := library.NewPrivacy([]string{"nowhere"})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if r.Library, err = library.New(t.Context(), library.Config{DB: r.db, Source: source, NeverSend: private}); err != nil {
		t.Fatal(err)
	}
	if err := r.Library.Exclude(t.Context(), "drafts"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Library.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Library.Add(t.Context(), "uploads", library.Upload{Name: "report.pdf", Data: document(t, "report.pdf")}); err != nil {
		t.Fatal(err)
	}
	r.Progress = progress.New(progress.Config{DB: r.db, Dir: vault,
		List: func(ctx context.Context) ([]string, error) { return r.Library.OfType(ctx, "project") },
		Read: func(_ context.Context, p string) ([]byte, error) { return os.ReadFile(filepath.Join(vault, p)) }})
	r.Inquiries = &graph.Inquiries{Store: graph.NewStore(r.db), Reader: wellRead{}, Model: func(llm.Request) (string, bool) { return "m", true },
		Search: func(_ context.Context, collection, _ string, _ int, _ bool) ([]graph.Source, error) {
			if collection != "vault" {
				return nil, nil
			}
			return []graph.Source{{Citation: llm.Citation{Path: "house.md", Quote: "The filter is washed every spring.", End: 34}}}, nil
		},
		Stands: func(_ context.Context, s graph.Source) (llm.Citation, bool) { return s.Citation, true }}
	for run, plan := range map[string]string{"turn-701": llm.PlanAuto, "turn-702": llm.PlanAsk} {
		_, err := llm.Collect(r.Inquiries.Stream(t.Context(), llm.Request{Run: run, Purpose: "chat", Plan: plan,
			Messages: []llm.Message{llm.Says(llm.User, "When is the filter washed, and by whom of us, before the winter or after it?")}}))
		if (err != nil) != (plan == llm.PlanAsk) {
			t.Fatal(err)
		}
	}
	r.work(t, r.queueUp, r.employ)

	seedBooks(r)
	r.book.Learn("groq", []llm.Limit{
		{Model: "llama-3.3-70b-versatile", Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(812), Reset: time.Now().Add(7 * time.Hour)},
		{Model: "llama-3.3-70b-versatile", Dimension: llm.TokensPerMinute, Max: llm.Known(12000), Remaining: llm.Known(900), Reset: time.Now().Add(41 * time.Second)},
	}, time.Now())
	seedQueue(t, r)
	if _, _, err := r.Jobs.Submit(t.Context(), jobs.Spec{Prompt: "Read all minutes since August, however long that takes", Model: "gemma4:27b"}, ""); err != nil {
		t.Fatal(err)
	}
	<-r.puppet.asked
	chats := []string{"/", "/?q=tram"}
	c := r.answered("How do I get last night's vault back, and how do I know that it worked?", longAnswer,
		llm.Citation{Path: "handbook/restore it.md", Heading: []string{"Restore", "The vault"}, Start: 63, End: 119, Line: 7, EndLine: 8},
		llm.Citation{Path: "handbook/restore it.md", Heading: []string{"Restore"}, Start: 121, End: 155, Line: 10, EndLine: 10})
	again, err := r.Chats.Regenerate(t.Context(), c.ID, optionsOf(c))
	if err != nil {
		t.Fatal(err)
	}
	x := <-r.puppet.asked
	x.text(longAnswer)
	x.done()
	r.end(again.ID)
	h, x := r.ask("Compare the two drafts in my inbox")
	x.fail <- &llm.BusyError{Provider: "groq", Kind: llm.Quota, Reason: "groq: all 1000 requests/day used up", Until: time.Now().Add(2 * time.Hour)}
	r.end(h.ID)
	b, x := r.ask("List the open tasks of phase two")
	x.text("There are five:\n\n1. the")
	x.fail <- &llm.Error{Kind: llm.Unavailable, Provider: "contabo", Message: "connection reset by peer"}
	r.end(b.ID)
	s, x := r.ask("Explain Write-Ahead Logging to me")
	x.text("Think of the notebook by the stove.")
	for _, turn := range []int64{c.Chat, h.Chat, b.Chat, s.Chat} {
		chats = append(chats, fmt.Sprintf("/chats/%d", turn))
	}
	for _, name := range []string{"briefing", "asked"} {
		run, err := r.Agents.Start(t.Context(), name, false, "")
		if err != nil {
			t.Fatal(err)
		}
		if name == "asked" {
			x = <-r.puppet.asked
			x.text("Hello. Here is [a page](https://example.org) and a list:\n\n- one\n- two")
			x.done()
		}
		if _, err := r.Agents.Await(t.Context(), run.ID); err != nil {
			t.Fatal(err)
		}
	}
	return r, map[string][]string{
		"chat": chats, "note": {"/notes/handbook/restore%20it.md?from=63&to=119", "/documents/uploads?path=report.pdf"}, "usage": {"/usage"}, "health": {"/health"},
		"queue": {"/jobs"}, "job": {"/jobs/1", "/jobs/2", "/jobs/3", "/jobs/4"}, "newjob": {"/jobs/new"}, "library": {"/library", "/library?q=pond+water"}, "progress": {"/progress"},
		"memory": {"/memory"}, "runs": {"/runs"}, "run": {"/runs/1", "/runs/2"}, "tools": {"/tools", fmt.Sprintf("/tools?chat=%d", c.Chat)},
		"agents": {"/agents"}, "agent": {"/agents/briefing", "/agents/asked"}, "agentrun": {"/agents/runs/1", "/agents/runs/2"}, "error": {"/nothing"},
	}
}

// measure is JavaScript that returns what is wrong with a page: things to touch that are less than 40 px high or wide, texts with a contrast
// below 4.5, rows of tables whose texts begin at several heights, and a page that is wider than the screen. Not measured are links inside of running text, which are as high as its lines, what
// cannot be used now, and what nobody sees.
const measure = `(phone => {
  for (const d of document.querySelectorAll('details')) d.open = true;
  const wrong = [], name = e => e.tagName.toLowerCase() + (e.id && '#' + e.id) + (e.className && e.className.trim ? '.' + e.className.trim().replace(/ +/g, '.') : '') + ' "' + (e.getAttribute('aria-label') || e.textContent || e.name || '').trim().replace(/\s+/g, ' ').slice(0, 40) + '" in ' + e.parentElement.className + '/' + e.parentElement.parentElement?.className;
  const seen = e => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.unseen, .skip') && e.getClientRects().length > 0;
  const running = e => e.matches('a') && (e.closest('.prose, .lines, .foot, blockquote, .remembered, .memory .fact') || getComputedStyle(e).display === 'inline' && [...e.parentElement.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  if (phone) for (const e of document.querySelectorAll('a[href], button, summary, input:not([type=hidden]), select, textarea')) {
    if (!seen(e) || e.disabled || running(e)) continue;
    const r = (e.matches('[type=checkbox], [type=radio]') && e.closest('label') || e).getBoundingClientRect();
    if (r.width < 39.5 || r.height < 39.5) wrong.push(Math.round(r.width) + 'x' + Math.round(r.height) + ' ' + name(e));
  }
  for (const row of document.querySelectorAll('.books:not(.stack, .limits) tbody tr')) { // what stands in a row begins at one height
    const tops = [...row.cells].map(c => document.createTreeWalker(c, NodeFilter.SHOW_TEXT)).map(w => { for (let n; n = w.nextNode();) if (n.data.trim() && seen(n.parentElement) && !n.parentElement.closest('svg, button, select')) { const r = document.createRange(); r.selectNode(n); return r.getClientRects()[0].top; } }).filter(y => y !== undefined);
    const apart = Math.max(...tops) - Math.min(...tops);
    if (apart > 12) wrong.push('texts ' + Math.round(apart) + ' px apart in the row ' + name(row));
  }
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth; // innerWidth grows with it
  if (over > 0) wrong.push('wider than the screen by ' + over);
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = c => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); const d = pen.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const on = (f, b) => [0, 1, 2].map(i => f[i] * f[3] + b[i] * (1 - f[3]));
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { const all = []; for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); all.push(c); if (c[3] === 1) break; } return all.reduceRight((b, c) => on(c, b), [255, 255, 255]); };
  const check = (e, colour, what) => {
    const b = ground(e), f = on(rgba(colour), b), [x, y] = [light(f), light(b)].sort((p, q) => q - p), c = (x + .05) / (y + .05);
    if (c < 4.5) wrong.push('contrast ' + c.toFixed(2) + ' of ' + what + ' ' + name(e));
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), done = new Set();
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || done.has(e) || !seen(e) || e.closest('title, noscript, :disabled, option')) continue;
    done.add(e);
    const s = getComputedStyle(e);
    check(e, e.closest('svg') ? s.fill : s.color, 'text');
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), textarea, select')) if (seen(e) && !e.disabled) {
    check(e, getComputedStyle(e).color, 'field');
    if (e.placeholder) check(e, getComputedStyle(e, '::placeholder').color, 'placeholder');
  }
  return [...new Set(wrong)];
})`

// Every page, with something on it: all that can be touched on a phone is large enough, all text can be read in both themes, and nothing is
// wider than the screen. With SCREENSHOTS the pages are kept for a person to look at.
func TestEveryPageCanBeTouchedAndRead(t *testing.T) {
	r, pages := wholeRig(t)
	var shown []string
	for name := range r.pages {
		if name != "parts" {
			shown = append(shown, name)
		}
	}
	slices.Sort(shown)
	if names := slices.Sorted(maps.Keys(pages)); !slices.Equal(names, shown) {
		t.Fatalf("there are the pages %q, and measured are %q", shown, names)
	}
	b := browsertest.Start(t)
	for _, name := range shown {
		for n, path := range pages[name] {
			tab := b.Tab(t)
			tab.Run(chromedp.Navigate(r.server.URL+path), chromedp.WaitReady(chromedp.CSS("html.scripted")))
			tab.Until(fmt.Sprintf("document.body.classList.contains('on-error') === %v", name == "error"))
			for _, width := range []int64{390, 850, 1280} { // a phone, a tablet, a desk
				for _, theme := range []string{"light", "dark"} {
					tab.Run(screen(width, 844), themed(theme))
					if dir := os.Getenv("SCREENSHOTS"); dir != "" {
						tab.Run(chromedp.Reload(), chromedp.WaitReady(chromedp.CSS("html.scripted")))
						capture(t, tab, dir, fmt.Sprintf("%s%d-%d-%s.png", name, n, width, theme))
					}
					wrong, err := chromedp.Run(tab.Context(), chromedp.Evaluate[[]string](fmt.Sprintf("%s(%v)", measure, width == 390)))
					if err != nil {
						t.Fatal(err)
					}
					for _, w := range wrong {
						t.Errorf("%s, %d px, %s: %s", path, width, theme, w)
					}
				}
			}
			tab.Close()
		}
	}
}

func themed(theme string) browsertest.Action {
	return browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
}
