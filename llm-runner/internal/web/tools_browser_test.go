//go:build prove

package web

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/browsertest"
)

func TestToolsInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	r, _ := tooledRig(t)
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), browsertest.Click("#composer input[name=tools]"),
		chromedp.Focus(chromedp.CSS("#ask")), chromedp.KeyEvent("Write about ferns\r"))
	p := <-r.puppet.asked
	if len(p.req.Tools) != 2 {
		t.Errorf("asked with %+v", p.req.Tools)
	}
	x.Until(`location.pathname === '/chats/1'`)
	p.text("I look first.")
	p.call(0, "web_search", `{"query":"ferns in shade"}`)
	p.say <- llm.Event{Finish: llm.FinishTools}
	p = <-r.puppet.asked
	// The call stands under the answer while the next step is under way; what it brought is text.
	x.Until(`document.querySelector('details.call summary')?.innerText.includes('web_search') && document.querySelector('details.call summary').innerText.includes('done')`)
	x.Until(`!document.querySelector('article script') && document.querySelector('article').ownerDocument.querySelectorAll('details.call .proposal').length === 2`)
	p.call(0, "vault_write", `{"path":"garden.md","text":"x"}`)
	p.say <- llm.Event{Finish: llm.FinishTools}
	x.State(string(chat.Held))
	x.Until(`document.querySelector('.waits .proposal')?.innerText.includes('+Ferns <b>want</b> shade.')`)
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
			for _, theme := range []string{"light", "dark"} {
				for name, path := range map[string]string{"tools-chat": "/chats/1", "tools": "/tools"} {
					tab := b.Tab(t)
					tab.Run(screen(size[0], size[1]),
						browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
						chromedp.Navigate(r.server.URL+path), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.Sleep(250*time.Millisecond))
					capture(t, tab, dir, fmt.Sprintf("%s-%d-%s.png", name, size[0], theme))
					tab.Close()
				}
			}
		}
	}
	x.Run(browsertest.Click("button[formaction$='/approve']"))
	p = <-r.puppet.asked
	p.text("It is written.")
	p.done()
	x.State(string(chat.Finished))
	x.Says("I look first.")
	x.Says("It is written.")
	x.Until(`document.querySelectorAll('details.call').length === 2 && !document.querySelector('.waits')`)
}
