//go:build prove

package web

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/browsertest"
)

func TestTheQueueInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	r := withQueue(t)
	list, x := b.Tab(t), b.Tab(t)
	scripted := chromedp.WaitReady(chromedp.CSS("html.scripted"))
	list.Run(chromedp.Navigate(r.server.URL+"/jobs"), scripted)
	list.Until(`document.querySelector('.empty h2').innerText === 'No jobs yet'`)

	// Submitted in one tab, it appears in the other.
	x.Run(chromedp.Navigate(r.server.URL+"/jobs/new"), scripted, chromedp.SendKeys(chromedp.CSS("textarea[name=prompt]"), "Tell me"),
		browsertest.Click("form[action='/jobs'] button.primary"))
	x.Until(`location.pathname === '/jobs/1'`)
	p := <-r.puppet.asked
	list.Until(`document.querySelector('.jobs h2')?.innerText.startsWith('running')`)

	// Its answer arrives; complete blocks stay the same elements while the page around them is loaded again.
	p.text("A *first* one.\n\nAnd the ")
	x.Until(`document.querySelector('.arriving')?.innerText.includes('And the')`)
	x.Run(browsertest.Script(`window.kept = document.querySelector('.arriving .b'); undefined`))
	p.text("second")
	x.Until(`document.querySelector('.arriving').innerText.includes('And the second') && kept === document.querySelector('.arriving .b') && kept.innerHTML === '<p>A <em>first</em> one.</p>'`)
	p.fail <- &llm.BusyError{Provider: "groq", Kind: llm.Quota, Reason: "groq: used up", Dimension: "requests/day", Until: time.Now().Add(time.Hour)}
	x.Until(`document.querySelector('.verdict').innerText.includes('held: groq: used up') && !document.querySelector('.arriving')`)
	list.Until(`document.querySelector('.jobs h2')?.innerText.startsWith('held')`)

	// Released from the list, it begins anew on its own page, with nothing left of what had come.
	list.Run(browsertest.Click("form[action='/jobs/1/release'] button"))
	p = <-r.puppet.asked
	p.text("Once more")
	x.Until(`document.querySelector('.arriving')?.innerText.trim() === 'Once more'`)
	p.done()
	x.Until(`document.querySelector('.verdict').innerText.includes('done') && document.querySelector('.prose').innerText.trim() === 'Once more' && !document.querySelector('[data-live]')`)

	// The line that breaks comes back, and Cancel works after it.
	if _, _, err := r.Jobs.Submit(t.Context(), jobs.Spec{Prompt: "Never mind"}, ""); err != nil {
		t.Fatal(err)
	}
	<-r.puppet.asked
	x.Run(chromedp.Navigate(r.server.URL+"/jobs/2"), scripted)
	x.Until(`document.querySelector('.verdict').innerText.includes('running')`)
	r.server.CloseClientConnections()
	list.Run(chromedp.Navigate(r.server.URL+"/jobs"), scripted, browsertest.Click("form[action='/jobs/2/cancel'] button"))
	list.Until(`location.pathname === '/jobs/2' && document.querySelector('.verdict').innerText.includes('cancelled')`)
	x.Until(`document.querySelector('.verdict').innerText.includes('cancelled')`)
	x.Run(browsertest.Click("form[action='/jobs/2/retry'] button"))
	(<-r.puppet.asked).done()
}
