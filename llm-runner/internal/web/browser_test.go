//go:build prove

package web

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/browsertest"
)

func optionsOf(t chat.Turn) chat.Options { return chat.Options{Model: t.Asked, Project: t.Project} }

func TestAConversationInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	r := newRig(t)
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")))

	// Keyboard only: the composer has the focus, Shift-Enter is a new line, Enter sends.
	x.Until(`document.activeElement.id === 'ask'`)
	x.Run(chromedp.KeyEvent("First line"), shiftEnter(), chromedp.KeyEvent("second line\r"))
	p := <-r.puppet.asked
	if got := p.req.Messages[0].Text(); got != "First line\nsecond line" {
		t.Errorf("asked %q", got)
	}
	x.Until(`location.pathname === '/chats/1'`)
	x.State(string(chat.Waiting))

	// It streams: blocks that are complete stay the same elements.
	p.text("A *first* paragraph.\n\nAnd the ")
	x.Says("And the")
	x.State(string(chat.Streaming))
	x.Run(browsertest.Script(`window.kept = document.querySelector('.b'); undefined`))
	p.text("second **one**")
	x.Says("And the second one")
	x.Until(`window.kept === document.querySelector('.b') && kept.innerHTML === '<p>A <em>first</em> paragraph.</p>'`)

	// A second tab and a reload see all of it, and go on.
	y := b.Tab(t)
	y.Run(chromedp.Navigate(r.server.URL + "/chats/1"))
	y.Says("And the second one")
	x.Run(chromedp.Reload(), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Says("And the second one")
	p.text(" here.")
	x.Says("second one here.")
	y.Says("second one here.")

	// The line breaks and comes back.
	r.server.CloseClientConnections()
	p.text(" After the break.")
	x.Says("After the break.")
	p.done()
	x.State(string(chat.Finished))
	y.State(string(chat.Finished))
	x.Until(`document.querySelector('.facts summary').innerText.includes('qwen2.5:14b on contabo')`)
	x.Until(`document.querySelector('#said').innerText === 'The answer is complete'`)

	// Esc stops.
	x.Run(chromedp.Focus(chromedp.CSS("#ask")), chromedp.KeyEvent("And more?\r"))
	p = <-r.puppet.asked
	p.text("Half of")
	x.Says("Half of")
	x.Until(`document.querySelector('#send').innerText === 'Stop'`)
	x.Run(chromedp.KeyEvent("\x1b"))
	x.State(string(chat.Stopped))
	y.Until(`document.querySelectorAll('article.a').length === 2`) // the other tab is told

	// Edit branches, and the arrows go back.
	x.Run(browsertest.Script(`{ const d = document.querySelectorAll('.edit')[1]; d.open = true; d.querySelector('textarea').value = ''; d.querySelector('textarea').focus() }`),
		chromedp.KeyEvent("Something else\r"))
	p = <-r.puppet.asked
	p.text("Another answer")
	p.done()
	x.State(string(chat.Finished))
	x.Says("Another answer")
	x.Until(`document.querySelector('.q .branch span').innerText === '2/2'`)
	x.Run(browsertest.Click(".q .branch button:first-child"))
	x.Says("Half of")
	x.Until(`document.querySelector('.q .branch span').innerText === '1/2'`)

	// Regenerate puts an answer beside it.
	x.Run(browsertest.Click(".a:last-child .acts form[action$=again] button"))
	p = <-r.puppet.asked
	p.text("Once more")
	p.done()
	x.Says("Once more")
	x.State(string(chat.Finished))
	x.Run(browsertest.Click(".a:last-child .acts form[action$=regenerate] button"))
	(<-r.puppet.asked).done()
	x.Until(`document.querySelector('.a:last-child .branch span').innerText === '3/3'`)

	// The palette goes to another page; back comes back.
	x.Run(browsertest.Script(`dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true}))`), chromedp.WaitVisible(chromedp.CSS("dialog input")),
		chromedp.KeyEvent("usa\r"))
	x.Until(`location.pathname === '/usage'`)
	x.Run(chromedp.NavigateBack())
	x.Until(`location.pathname === '/chats/1'`)

	for _, tab := range []*browsertest.Tab{x, y} {
		for _, w := range tab.Complaints() {
			if !strings.Contains(w, "/events") && !strings.Contains(w, "ERR_") { // the line that the test broke
				t.Errorf("console: %s", w)
			}
		}
	}
}

// Nobody clicks: what was held goes on when there is room.
func TestAHeldAnswerGoesOnInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	r := durableRig(t)
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SendKeys(chromedp.CSS("#ask"), "Anybody there?\r"))
	held := func(until time.Time) {
		t.Helper()
		(<-r.puppet.asked).fail <- &llm.BusyError{Provider: "groq", Kind: llm.Quota, Reason: "groq: all 30 requests/minute used up", Until: until}
		x.State(string(chat.Held))
	}
	held(time.Now().Add(15 * time.Second))
	x.Until(`document.querySelector('.state').innerText.includes('It goes on by itself at') && document.querySelector('#send').innerText === 'Send'`)
	y := b.Tab(t) // opened while it waits
	y.Run(chromedp.Navigate(r.server.URL+"/chats/1"), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	r.server.CloseClientConnections() // and the line comes back
	p := <-r.puppet.asked
	p.text("Yes, ")
	x.Says("Yes,")
	x.State(string(chat.Streaming))
	p.text("now.")
	p.done()
	for _, tab := range []*browsertest.Tab{x, y} {
		tab.Says("Yes, now.")
		tab.State(string(chat.Finished))
	}

	// A person may ask at once, or have it wait no longer.
	x.Run(chromedp.SendKeys(chromedp.CSS("#ask"), "And now?\r"))
	held(time.Time{})
	x.Until(`document.querySelector('.a:last-child .state').innerText.includes('as soon as somebody can answer')`)
	x.Run(browsertest.Click(".a:last-child form[action$=again] button"))
	held(time.Time{})
	x.Run(browsertest.Click(".a:last-child form[action$=stop] button"))
	x.State(string(chat.Stopped))
	x.Until(`document.querySelector('.a:last-child form[action$=again] button').innerText === 'Ask again'`)
	for _, tab := range []*browsertest.Tab{x, y} {
		for _, w := range tab.Complaints() {
			if !strings.Contains(w, "/events") && !strings.Contains(w, "ERR_") { // the line that the test broke
				t.Errorf("console: %s", w)
			}
		}
	}
}

func shiftEnter() browsertest.Action { return chromedp.KeyEvent("\r", chromedp.KeyModifiers(8)) }

func TestAnswersCannotRunOrLoadAnything(t *testing.T) {
	b := browsertest.Start(t)
	r := newRig(t)
	var all strings.Builder
	for _, c := range hostile {
		all.WriteString(c + "\n\n")
	}
	c := r.answered("show me", all.String())
	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.server.URL+chatPath(c)), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Until(`document.querySelectorAll('.prose .b').length > 10 && !window.hacked`)
	x.Until(`performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))`)
	for _, w := range x.Complaints() {
		t.Errorf("console: %s", w)
	}
}

func TestEveryFormWorksWithoutScript(t *testing.T) {
	b := browsertest.Start(t)
	r := newRig(t)
	x := b.Tab(t)
	x.Run(browsertest.Set(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate(r.server.URL+"/"), chromedp.SendKeys(chromedp.CSS("#ask"), "No script here"),
		browsertest.Click("#send"), chromedp.WaitVisible(chromedp.CSS(".stop")))
	p := <-r.puppet.asked
	p.text("Served ", "whole")
	p.done()
	r.end(2)
	x.Run(chromedp.Navigate(r.server.URL+"/chats/1"), chromedp.WaitVisible(chromedp.CSS(".facts")),
		browsertest.Click(".acts form[action$=regenerate] button"), chromedp.WaitVisible(chromedp.CSS(".stop")),
		browsertest.Click(".stop"), chromedp.WaitVisible(chromedp.CSS("form[action$=again]")))
	text, err := chromedp.Run(x.Context(), chromedp.Text(chromedp.CSS("#thread")))
	if err != nil || !strings.Contains(text, "Stopped by you") || !strings.Contains(text, "2/2") {
		t.Errorf("%s", text)
	}
}
