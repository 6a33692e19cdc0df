// Package browsertest drives Debian's Chromium for tests, without a window.
package browsertest

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/test/needs"
)

// patience bounds each step and each wait: long for a browser on a machine that others want, too.
const patience = 60 * time.Second

// A Browser is Chromium without a window, which calls nobody but the test's own server.
type Browser struct{ ctx context.Context }

// Start starts Chromium for one test, and skips the test where there is none.
func Start(t *testing.T) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		needs.Missing(t, "chromium is not installed")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(90*time.Second))
	t.Cleanup(cancel)
	first, cancelFirst := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		chromedp.Cancel(first) //nolint:errcheck // it waits for Chromium to leave its folder
		cancelFirst()
	})
	if err := chromedp.Do(first); err != nil {
		t.Fatal(err)
	}
	return &Browser{first}
}

// An Action is a step in a tab.
type Action = chromedp.Action[chromedp.Void]

// Set sends a command of the browser's protocol.
func Set[P, R any](cmd cdp.Command[P, R], params P) Action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, cmd, params)
		return err
	})
}

// Script runs JavaScript in the page, without the page's own policy.
func Script(js string) Action { return chromedp.Evaluate[chromedp.Void](js) }

// Click clicks on the first element that a selector finds; again, where the page drew it anew between finding and clicking.
func Click(css string) Action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		for {
			err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(css)))
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "-32000") { // what the protocol says of a node that is gone
				return err
			}
		}
	})
}

// A Tab is one tab; what its console complains of fails the test.
type Tab struct {
	t     *testing.T
	ctx   context.Context
	Close func() // closes the tab; it may be called again

	mu    sync.Mutex
	wrong []string
}

// Tab opens a tab. It closes with the test.
func (b *Browser) Tab(t *testing.T) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	x := &Tab{t: t, Close: sync.OnceFunc(cancel)}
	t.Cleanup(x.Close)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of its first call
		t.Fatal(err)
	}
	x.ctx = ctx
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

// Context is the tab's, for steps that return something.
func (x *Tab) Context() context.Context { return x.ctx }

// Run takes steps, one after the other.
func (x *Tab) Run(actions ...Action) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		x.t.Fatalf("%v; console: %q", err, x.Complaints())
	}
}

// Complaints is what the console has complained of so far.
func (x *Tab) Complaints() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wrong
}

// Until waits for an expression to be true, across navigations.
func (x *Tab) Until(js string) {
	x.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, err := chromedp.Run(x.ctx, chromedp.Poll[bool](js, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(time.Until(deadline))))
		if err == nil {
			return
		}
		if errors.Is(err, chromedp.ErrPollingTimeout) || time.Now().After(deadline) || x.ctx.Err() != nil {
			body, _ := chromedp.Run(x.ctx, chromedp.Evaluate[string](`document.querySelector('main')?.innerText`))
			x.t.Fatalf("waiting for %s: %v\n%s\nconsole: %q", js, err, body, x.Complaints())
		}
		x.Run(chromedp.WaitReady(chromedp.CSS("body"))) // the page went away meanwhile
	}
}

// Says waits until the newest answer reads so.
func (x *Tab) Says(text string) {
	x.t.Helper()
	x.Until(`[...document.querySelectorAll('.prose')].at(-1)?.innerText.includes(` + quoted(text) + `)`)
}

// State waits until the newest answer is in a state.
func (x *Tab) State(want string) {
	x.t.Helper()
	x.Until(`[...document.querySelectorAll('article.a')].at(-1)?.dataset.state === '` + want + `'`)
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }
