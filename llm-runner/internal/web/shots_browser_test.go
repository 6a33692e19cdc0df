//go:build prove

package web

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/browsertest"
)

const longAnswer = "Three steps, in this order [1]. The **fast** bucket has the vault from last night; the slow one is for photos.\n\n" +
	"1. Find the snapshot.\n2. Restore it *beside* the vault, never over it.\n3. Open one note and read it [2].\n\n" +
	"```go\n// latest returns the newest snapshot of a host.\nfunc latest(all []Snapshot, host string) (Snapshot, error) {\n\tvar best Snapshot\n\tfor _, s := range all {\n\t\tif s.Host == host && s.Time.After(best.Time) {\n\t\t\tbest = s\n\t\t}\n\t}\n\tif best.ID == \"\" {\n\t\treturn best, fmt.Errorf(\"host %s has no snapshot\", host)\n\t}\n\treturn best, nil // 42 lines of output follow, on one very long line that scrolls in its own box\n}\n```\n\n" +
	"What each tier keeps:\n\n| Tier | Schedule | Keeps | Cost a month |\n|:--|:--|--:|--:|\n| fast | daily | 7 days, 4 weeks, 3 months | $0.42 |\n| slow | weekly | 4 weeks, 12 months | $1.10 |\n\n" +
	"> A backup whose restore was never run is not a backup.\n\nIf `restic` asks for a password, it is in Infisical under `backup/fast`.\n"

// TestScreenshots writes pictures of the pages into the folder named by SCREENSHOTS, for a person to look at.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		t.Skip("SCREENSHOTS names no folder")
	}
	r := withQueue(t)
	b := browsertest.Start(t)
	cite := []llm.Citation{
		{Path: "handbook/restore it.md", Heading: []string{"Restore", "The vault"}, Start: 63, End: 119, Line: 7, EndLine: 8},
		{Path: "handbook/restore it.md", Heading: []string{"Restore"}, Start: 121, End: 155, Line: 10, EndLine: 10},
	}
	shootAt := func(name, url string) {
		t.Helper()
		for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
			for _, theme := range []string{"light", "dark"} {
				tab := b.Tab(t)
				tab.Run(screen(size[0], size[1]),
					browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
					chromedp.Navigate(url), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.Sleep(250*time.Millisecond))
				capture(t, tab, dir, fmt.Sprintf("%s-%d-%s.png", name, size[0], theme))
				tab.Close()
			}
		}
	}
	shoot := func(name, path string) {
		t.Helper()
		shootAt(name, r.server.URL+path)
	}
	shoot("start-empty", "/")
	shoot("queue-empty", "/jobs")
	shoot("job-new", "/jobs/new")
	has := r.NoModel
	r.NoModel = func() bool { return true }
	shoot("start-nomodel", "/")
	r.NoModel = has
	for _, q := range []string{"What did we decide about the k3s role?", "Summarise last week's notes", "Which containers have no memory limit?",
		"Write the release note for the gateway", "Why does Syncthing keep a conflict copy of my daily note every single morning?"} {
		r.answered(q, "Yes.")
	}
	seedBooks(r)
	r.book.Learn("groq", []llm.Limit{
		{Model: "llama-3.3-70b-versatile", Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(812), Reset: time.Now().Add(7 * time.Hour)},
		{Model: "llama-3.3-70b-versatile", Dimension: llm.TokensPerMinute, Max: llm.Known(12000), Remaining: llm.Known(900), Reset: time.Now().Add(41 * time.Second)},
	}, time.Now())
	c := r.answered("How do I get last night's vault back, and how do I know that it worked?", longAnswer, cite...)
	t2, err := r.Chats.Regenerate(context.Background(), c.ID, optionsOf(c))
	if err != nil {
		t.Fatal(err)
	}
	x := <-r.puppet.asked
	x.text(longAnswer)
	x.done(cite...)
	r.end(t2.ID)
	shoot("start", "/")
	shoot("conversation", chatPath(c))
	shoot("conversation-end", chatPath(c)+"#x")
	s, x := r.ask("Explain Write-Ahead Logging to me as if it were a kitchen notebook")
	x.text("Think of the notebook by the stove.\n\nEvery change is *first* written there:\n\n- one line a change,\n- never erased,\n- copied into the recipe book when")
	shoot("streaming", chatPath(s))
	h, x := r.ask("Compare the two drafts in my inbox")
	x.fail <- &llm.BusyError{Provider: "groq", Model: "llama-3.3-70b-versatile", Kind: llm.Quota, Reason: "groq: all 1000 requests/day used up", Until: time.Now().Add(2*time.Hour + 5*time.Minute)}
	r.end(h.ID)
	shoot("held", chatPath(h))
	due := durableRig(t)
	d, x := due.ask("Compare the two drafts in my inbox")
	x.fail <- &llm.BusyError{Provider: "groq", Model: "llama-3.3-70b-versatile", Kind: llm.Quota, Reason: "groq: all 1000 requests/day used up", Until: time.Now().Add(2*time.Hour + 5*time.Minute)}
	shootAt("held-due", due.server.URL+chatPath(d))
	w, _ := r.ask("Anybody there?")
	shoot("waiting", chatPath(w))
	br, x := r.ask("List the open tasks of phase two")
	x.text("There are five:\n\n1. the gateway,\n2. the")
	x.fail <- &llm.Error{Kind: llm.Unavailable, Provider: "contabo", Message: "connection reset by peer"}
	r.end(br.ID)
	shoot("broken", chatPath(br))
	seedQueue(t, r)
	shoot("queue", "/jobs")
	shoot("job-running", "/jobs/1")
	shoot("job-held", "/jobs/2")
	shoot("job-done", "/jobs/3")
	shoot("note", "/notes/handbook/restore%20it.md?from=63&to=119")
	shoot("usage", "/usage")
	shoot("health", "/health")
	shoot("error", "/nothing")

	// A citation beside the text, what is known of an answer, and the palette.
	tab := b.Tab(t)
	tab.Run(screen(1280, 800), chromedp.Navigate(r.server.URL+chatPath(c)), chromedp.WaitReady(chromedp.CSS("html.scripted")),
		browsertest.Click(".prose a.cite"), chromedp.WaitVisible(chromedp.CSS(".beside")))
	capture(t, tab, dir, "beside.png")
	tab.Run(chromedp.KeyEvent("\x1b"), browsertest.Script(`{document.querySelector('.facts').open = true; document.querySelector('.where').open = true; scrollTo(0, 1e6)}`))
	capture(t, tab, dir, "facts.png")
	tab.Run(browsertest.Script(`{document.querySelector('.where').open = false; dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true}))}`),
		chromedp.WaitVisible(chromedp.CSS("dialog")), chromedp.Sleep(200*time.Millisecond))
	capture(t, tab, dir, "palette.png")
}

func screen(width, height int64) browsertest.Action {
	return browsertest.Set(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1.5, Mobile: width < 800})
}

// capture writes what a tab shows into a file.
func capture(t *testing.T, x *browsertest.Tab, dir, name string) {
	t.Helper()
	png, err := chromedp.Run(x.Context(), chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), png, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// seedQueue has jobs in several states.
func seedQueue(t *testing.T, r *rig) {
	submit := func(c jobs.Spec) *play {
		if _, _, err := r.Jobs.Submit(context.Background(), c, ""); err != nil {
			t.Fatal(err)
		}
		return <-r.puppet.asked
	}
	submit(jobs.Spec{Prompt: "Explain Write-Ahead Logging as if it were a kitchen notebook", Priority: 2}).text("Think of the notebook by the stove.\n\n- one line a change,\n- never erased,\n- copied into the recipe book when")
	submit(jobs.Spec{Prompt: "Summarise the minutes of all meetings since August, one paragraph for each decision", Model: "llama-70b"}).fail <- &llm.BusyError{Provider: "groq", Model: "llama-3.3-70b-versatile",
		Kind: llm.Quota, Reason: "groq: all 1000 requests/day used up", Dimension: "requests/day", Until: time.Now().Add(2 * time.Hour)}
	p := submit(jobs.Spec{Prompt: "How do I get last night's vault back?"})
	p.text(longAnswer)
	p.done()
	submit(jobs.Spec{Prompt: "Translate the letter", Type: jobs.Text}).fail <- &llm.Error{Kind: llm.Auth, Provider: "anthropic", Message: "the key was refused"}
	for id, state := range map[int64]jobs.State{1: jobs.Running, 2: jobs.Held, 3: jobs.Done, 4: jobs.Failed} {
		r.reach(id, state)
	}
}

// seedBooks writes two weeks of attempts.
func seedBooks(r *rig) {
	for day := range 14 {
		for i := range (day*7)%11 + 1 {
			at := time.Now().AddDate(0, 0, day-13)
			for _, p := range []string{"contabo", "groq"} {
				a, err := r.ledger.Begin(context.Background(), usage.Start{At: at, Purpose: "chat", Asked: "", Rule: "default", Provider: p, Model: "qwen2.5:14b"})
				if err != nil {
					r.t.Fatal(err)
				}
				e := usage.End{Outcome: usage.OK, FirstByte: 300 * time.Millisecond, Total: time.Duration(2+i) * time.Second,
					Usage: llm.Usage{Input: llm.Known(1200), Output: llm.Known(380)}}
				if p == "groq" && i == 4 {
					e = usage.End{Outcome: usage.Busy, Err: &llm.BusyError{Kind: llm.Quota, Reason: "all 30 requests/minute used up"}, Total: 90 * time.Millisecond}
				}
				if p == "contabo" && day == 12 && i == 1 {
					e = usage.End{Outcome: usage.Failed, Err: &llm.Error{Kind: llm.Unavailable, Message: "connection refused"}, Total: time.Second}
				}
				a.Close(e)
			}
		}
	}
}
