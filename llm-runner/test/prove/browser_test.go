//go:build prove

package prove

import (
	"testing"

	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/browsertest"
)

// A person asks a real model in a real browser, stops one answer, and finds everything again after a reload and after the
// program was started anew.
func TestAPersonAsksARealModel(t *testing.T) {
	b := browsertest.Start(t)
	h := newHouse(t)
	x := b.Tab(t)
	x.Run(chromedp.Navigate(h.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Until(`document.querySelector('.where').innerText.includes('davas')`)
	x.Run(chromedp.SendKeys(chromedp.CSS("#ask"), "hi\r"))
	x.Says("Hello from a tiny model")
	x.State("finished")
	x.Until(`document.querySelector('.facts summary').innerText.includes('tiny-chat on contabo')`)

	x.Run(chromedp.Navigate(h.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SetValue(chromedp.CSS("select[name=model]"), "tiny-slow"),
		chromedp.SendKeys(chromedp.CSS("#ask"), "count\r"))
	x.Says("1 2 3")
	x.Run(chromedp.KeyEvent("\x1b"))
	x.State("stopped")
	h.waitOutcome("tiny-slow", usage.Cancelled)

	x.Run(chromedp.Navigate(h.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SetValue(chromedp.CSS("select[name=model]"), "gemma4"),
		chromedp.SendKeys(chromedp.CSS("#ask"), "who is there?\r"))
	x.State("held")

	h.kill()
	h.start()
	x.Run(chromedp.Navigate(h.url + "/chats/1"))
	x.Says("Hello from a tiny model")
}
