//go:build prove

package prove

import (
	"fmt"
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

// A provider's limit opens after a while: the page says that the answer is held, and then it is there without a click.
func TestAPersonWaitsForALimit(t *testing.T) {
	b := browsertest.Start(t)
	groq := newFake(t, "groq", "faults:\n  - {kind: \"429\", wait: 15s, on: [1]}\n")
	r := newRunner(t, fmt.Sprintf(`providers:
  groq: {kind: openai, url: "%s/openai/v1", key: "file:%s"}
routes:
  default: {provider: groq, model: tiny-chat}
`, groq.url, keyFile(t)))
	r.start()
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SendKeys(chromedp.CSS("#ask"), "patience\r"))
	x.State("held")
	x.Until(`document.querySelector('.state').innerText.includes('It goes on by itself at')`)
	x.Says("patience") // the fake echoes
	x.State("finished")
	if n := groq.answered(); n != 2 {
		t.Errorf("the provider was asked %d times", n)
	}
	for _, w := range x.Complaints() {
		t.Errorf("console: %s", w)
	}
}
