//go:build prove

package web

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/chat"
)

// browser is Chromium without a window, which calls nobody but the test's own server.
type browser struct{ ctx context.Context }

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("disable-dev-shm-usage", true))
	t.Cleanup(cancel)
	first, cancelFirst := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		chromedp.Cancel(first) //nolint:errcheck // it waits for Chromium to leave its folder
		cancelFirst()
	})
	if err := chromedp.Do(first); err != nil {
		t.Fatal(err)
	}
	return &browser{first}
}

type action = chromedp.Action[chromedp.Void]

// set sends a command of the browser's protocol.
func set[P, R any](cmd cdp.Command[P, R], params P) action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, cmd, params)
		return err
	})
}

// script runs JavaScript in the page, without the page's own policy.
func script(js string) action { return chromedp.Evaluate[chromedp.Void](js) }

func click(css string) action { return chromedp.Click(chromedp.CSS(css)) }

// tab is one tab; what its console complains of fails the test.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func()

	mu    sync.Mutex
	wrong []string
}

func (b *browser) tab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	x := &tab{t: t, close: sync.OnceFunc(cancel)}
	t.Cleanup(x.close)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of its first call
		t.Fatal(err)
	}
	limited, cancelLimit := context.WithTimeout(ctx, 60*time.Second)
	t.Cleanup(cancelLimit)
	x.ctx = limited
	err := chromedp.Listen(ctx, func(ev any) {
		x.mu.Lock()
		defer x.mu.Unlock()
		switch ev := ev.(type) {
		case *cdpruntime.EventExceptionThrown:
			x.wrong = append(x.wrong, ev.ExceptionDetails.Text)
		case *cdplog.EventEntryAdded: // refused by the content security policy, failed requests
			if ev.Entry.Level == cdplog.EntryLevelError || ev.Entry.Level == cdplog.EntryLevelWarning {
				x.wrong = append(x.wrong, ev.Entry.Text+" "+ev.Entry.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *tab) run(actions ...action) {
	x.t.Helper()
	if err := chromedp.Do(x.ctx, actions...); err != nil {
		x.t.Fatalf("%v; console: %q", err, x.complaints())
	}
}

func (x *tab) complaints() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wrong
}

// until waits for an expression to be true, across navigations.
func (x *tab) until(js string) {
	x.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := chromedp.Run(x.ctx, chromedp.Poll[bool](js, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(time.Until(deadline))))
		if err == nil {
			return
		}
		if errors.Is(err, chromedp.ErrPollingTimeout) || time.Now().After(deadline) || x.ctx.Err() != nil {
			body, _ := chromedp.Run(x.ctx, chromedp.Evaluate[string](`document.querySelector('main')?.innerText`))
			x.t.Fatalf("waiting for %s: %v\n%s\nconsole: %q", js, err, body, x.complaints())
		}
		x.run(chromedp.WaitReady(chromedp.CSS("body"))) // the page went away meanwhile
	}
}

// says waits until the newest answer reads so.
func (x *tab) says(text string) {
	x.t.Helper()
	x.until(`[...document.querySelectorAll('.prose')].at(-1)?.innerText.includes(` + quoted(text) + `)`)
}

func (x *tab) state(want chat.State) {
	x.t.Helper()
	x.until(`[...document.querySelectorAll('article.a')].at(-1)?.dataset.state === '` + string(want) + `'`)
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }

func optionsOf(t chat.Turn) chat.Options { return chat.Options{Model: t.Asked, Project: t.Project} }

func TestAConversationInABrowser(t *testing.T) {
	b := newBrowser(t)
	r := newRig(t)
	x := b.tab(t)
	x.run(chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")))

	// Keyboard only: the composer has the focus, Shift-Enter is a new line, Enter sends.
	x.until(`document.activeElement.id === 'ask'`)
	x.run(chromedp.KeyEvent("First line"), shiftEnter(), chromedp.KeyEvent("second line\r"))
	p := <-r.puppet.asked
	if got := p.req.Messages[0].Text(); got != "First line\nsecond line" {
		t.Errorf("asked %q", got)
	}
	x.until(`location.pathname === '/chats/1'`)
	x.state(chat.Waiting)

	// It streams: blocks that are complete stay the same elements.
	p.text("A *first* paragraph.\n\nAnd the ")
	x.says("And the")
	x.state(chat.Streaming)
	x.run(script(`window.kept = document.querySelector('.b'); undefined`))
	p.text("second **one**")
	x.says("And the second one")
	x.until(`window.kept === document.querySelector('.b') && kept.innerHTML === '<p>A <em>first</em> paragraph.</p>'`)

	// A second tab and a reload see all of it, and go on.
	y := b.tab(t)
	y.run(chromedp.Navigate(r.server.URL + "/chats/1"))
	y.says("And the second one")
	x.run(chromedp.Reload(), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.says("And the second one")
	p.text(" here.")
	x.says("second one here.")
	y.says("second one here.")

	// The line breaks and comes back.
	r.server.CloseClientConnections()
	p.text(" After the break.")
	x.says("After the break.")
	p.done()
	x.state(chat.Finished)
	y.state(chat.Finished)
	x.until(`document.querySelector('.facts summary').innerText.includes('qwen2.5:14b on contabo')`)
	x.until(`document.querySelector('#said').innerText === 'The answer is complete'`)

	// Esc stops.
	x.run(chromedp.Focus(chromedp.CSS("#ask")), chromedp.KeyEvent("And more?\r"))
	p = <-r.puppet.asked
	p.text("Half of")
	x.says("Half of")
	x.until(`document.querySelector('#send').innerText === 'Stop'`)
	x.run(chromedp.KeyEvent("\x1b"))
	x.state(chat.Stopped)
	y.until(`document.querySelectorAll('article.a').length === 2`) // the other tab is told

	// Edit branches, and the arrows go back.
	x.run(script(`{ const d = document.querySelectorAll('.edit')[1]; d.open = true; d.querySelector('textarea').value = ''; d.querySelector('textarea').focus() }`),
		chromedp.KeyEvent("Something else\r"))
	p = <-r.puppet.asked
	p.text("Another answer")
	p.done()
	x.state(chat.Finished)
	x.says("Another answer")
	x.until(`document.querySelector('.q .branch span').innerText === '2/2'`)
	x.run(click(".q .branch button:first-child"))
	x.says("Half of")
	x.until(`document.querySelector('.q .branch span').innerText === '1/2'`)

	// Regenerate puts an answer beside it.
	x.run(click(".a:last-child .acts form[action$=again] button"))
	p = <-r.puppet.asked
	p.text("Once more")
	p.done()
	x.says("Once more")
	x.state(chat.Finished)
	x.run(click(".a:last-child .acts form[action$=regenerate] button"))
	(<-r.puppet.asked).done()
	x.until(`document.querySelector('.a:last-child .branch span').innerText === '3/3'`)

	// The palette goes to another page; back comes back.
	x.run(script(`dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true}))`), chromedp.WaitVisible(chromedp.CSS("dialog input")),
		chromedp.KeyEvent("usa\r"))
	x.until(`location.pathname === '/usage'`)
	x.run(chromedp.NavigateBack())
	x.until(`location.pathname === '/chats/1'`)

	for _, tab := range []*tab{x, y} {
		for _, w := range tab.complaints() {
			if !strings.Contains(w, "/events") && !strings.Contains(w, "ERR_") { // the line that the test broke
				t.Errorf("console: %s", w)
			}
		}
	}
}

func shiftEnter() action { return chromedp.KeyEvent("\r", chromedp.KeyModifiers(8)) }

func TestAnswersCannotRunOrLoadAnything(t *testing.T) {
	b := newBrowser(t)
	r := newRig(t)
	var all strings.Builder
	for _, c := range hostile {
		all.WriteString(c + "\n\n")
	}
	c := r.answered("show me", all.String())
	x := b.tab(t)
	x.run(chromedp.Navigate(r.server.URL+chatPath(c)), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.until(`document.querySelectorAll('.prose .b').length > 10 && !window.hacked`)
	x.until(`performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))`)
	for _, w := range x.complaints() {
		t.Errorf("console: %s", w)
	}
}

func TestEveryFormWorksWithoutScript(t *testing.T) {
	b := newBrowser(t)
	r := newRig(t)
	x := b.tab(t)
	x.run(set(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate(r.server.URL+"/"), chromedp.SendKeys(chromedp.CSS("#ask"), "No script here"),
		click("#send"), chromedp.WaitVisible(chromedp.CSS(".stop")))
	p := <-r.puppet.asked
	p.text("Served ", "whole")
	p.done()
	r.end(2)
	x.run(chromedp.Navigate(r.server.URL+"/chats/1"), chromedp.WaitVisible(chromedp.CSS(".facts")),
		click(".acts form[action$=regenerate] button"), chromedp.WaitVisible(chromedp.CSS(".stop")),
		click(".stop"), chromedp.WaitVisible(chromedp.CSS("form[action$=again]")))
	text, err := chromedp.Run(x.ctx, chromedp.Text(chromedp.CSS("#thread")))
	if err != nil || !strings.Contains(text, "Stopped by you") || !strings.Contains(text, "2/2") {
		t.Errorf("%s", text)
	}
}
