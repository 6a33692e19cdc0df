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
	"home.arpa/lab/llm-runner/test/browsertest"
)

func TestMemoryInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	r := memoryRig(t)
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")),
		chromedp.Focus(chromedp.CSS("#ask")), chromedp.KeyEvent("Which tram goes where I live?\r"))
	p := <-r.puppet.asked
	p.text("Number 66.")
	p.done()
	x.State(string(chat.Finished))
	x.Until(`document.querySelector('.remembered')?.innerText.includes('The user lives in Bonn')`)
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
			for _, theme := range []string{"light", "dark"} {
				for name, path := range map[string]string{"memory": "/memory", "memory-chat": "/chats/7", "memory-fact": "/memory#f5", "memory-start": "/"} {
					tab := b.Tab(t)
					tab.Run(screen(size[0], size[1]),
						browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
						chromedp.Navigate(r.server.URL+path), chromedp.WaitReady(chromedp.CSS("html.scripted")))
					if name == "memory-fact" {
						tab.Run(browsertest.Script(`{for (const d of document.querySelectorAll('#f5 details, .history')) d.open = true; document.querySelector('#f5').scrollIntoView()}`))
					}
					tab.Run(chromedp.Sleep(250 * time.Millisecond))
					capture(t, tab, dir, fmt.Sprintf("%s-%d-%s.png", name, size[0], theme))
					tab.Close()
				}
			}
		}
	}
	x.Run(browsertest.Click(".remembered a"))
	x.Until(`location.hash === '#f5'`)
	x.Run(browsertest.Click(".sides button[value=both]"))
	x.Until(`!document.querySelector('.sides')`)
	x.Run(browsertest.Script(`{for (const d of document.querySelectorAll('#f5 details')) d.open = true}`), browsertest.Click("#f5 .danger"))
	x.Until(`!document.querySelector('#f5')`)
}
