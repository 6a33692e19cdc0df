//go:build prove

package web

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/test/browsertest"
)

// The pages of agents fit a phone and a screen, and their forms work. With SCREENSHOTS they are kept for a person to look at.
func TestAgentsInTheBrowser(t *testing.T) {
	r := withAgents(t)
	b := browsertest.Start(t)
	tab := b.Tab(t)
	tab.Run(screen(1280, 800), chromedp.Navigate(r.server.URL+"/agents"), browsertest.Click(`button[aria-label="Switch Briefing on"]`), chromedp.WaitVisible(chromedp.CSS(`button[aria-label="Pause Briefing"]`)),
		browsertest.Click(`button[aria-label="Run Briefing now"]`), chromedp.WaitVisible(chromedp.CSS(`a[href="/api/agents/runs/1"]`)))
	if _, err := r.Agents.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	tab.Close()
	if _, err := r.Agents.Start(t.Context(), "asked", false, ""); err != nil {
		t.Fatal(err)
	}
	x := <-r.puppet.asked
	x.text("Hello. Here is [a page](https://example.org) and a list:\n\n- one\n- two")
	x.done()
	if _, err := r.Agents.Await(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"agents": "/agents", "agent": "/agents/briefing", "agent-run": "/agents/runs/1", "agent-run-asked": "/agents/runs/2"} {
		for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
			for _, theme := range []string{"light", "dark"} {
				tab := b.Tab(t)
				tab.Run(screen(size[0], size[1]),
					browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
					chromedp.Navigate(r.server.URL+path), chromedp.WaitReady(chromedp.CSS("html.scripted")))
				tab.Until(`document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
				if dir := os.Getenv("SCREENSHOTS"); dir != "" {
					if err := os.MkdirAll(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					capture(t, tab, filepath.Clean(dir), fmt.Sprintf("%s-%d-%s.png", name, size[0], theme))
				}
				tab.Close()
			}
		}
	}
}
