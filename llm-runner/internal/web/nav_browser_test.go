//go:build prove

package web

import (
	"os"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/test/browsertest"
)

// picture keeps what a tab shows in the folder named by SCREENSHOTS, if there is one.
func picture(t *testing.T, x *browsertest.Tab, name string) {
	t.Helper()
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		capture(t, x, dir, name)
	}
}

func TestAPhoneGetsEverywhere(t *testing.T) {
	r, _ := wholeRig(t)
	b := browsertest.Start(t)

	// Without the script: four places, the rest behind More, and no button that would do nothing.
	x := b.Tab(t)
	x.Run(screen(390, 844), browsertest.Set(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate(r.server.URL+"/usage"),
		browsertest.Click(".rail > .pop > summary"), chromedp.WaitVisible(chromedp.CSS(".rail .sheet a[href='/memory']")), chromedp.WaitNotVisible(chromedp.CSS(".find-any")))
	picture(t, x, "more-390-light.png")
	x.Run(browsertest.Click(".rail .sheet a[href='/memory']"), chromedp.WaitVisible(chromedp.CSS(".memory")))

	// With it: nothing of the bar is cut off, the palette opens by touch, and finds a note.
	x = b.Tab(t)
	x.Run(screen(390, 844), themed("dark"), chromedp.Navigate(r.server.URL+"/usage"), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Until(`(e => e.scrollWidth <= e.clientWidth && [...e.children].filter(c => c.checkVisibility()).length === 6)(document.querySelector('.rail'))`)
	x.Until(`document.querySelector('.rail .here span').innerText === 'More' && [...document.querySelectorAll('.rail .sheet a')].map(a => a.textContent.trim()).join() === 'Memory,Progress,Tools,Usage,Health'`)
	x.Run(browsertest.Click(".find-any"), chromedp.WaitVisible(chromedp.CSS("dialog input")))
	x.Until(`document.querySelectorAll('dialog li').length > 10`)
	picture(t, x, "palette-390-dark.png")
	x.Until(`[...document.querySelectorAll('dialog li')].every(e => e.getBoundingClientRect().height >= 40) && document.querySelector('dialog button').getBoundingClientRect().width >= 40`)
	x.Run(chromedp.KeyEvent("toads"))
	x.Until(`document.querySelector('dialog li')?.innerText.includes('Pond')`)
	x.Run(browsertest.Click("dialog li"))
	x.Until(`location.pathname === '/notes/pond/pond.md'`)

	// The form of a job has its rarer fields folded.
	x.Run(chromedp.Navigate(r.server.URL+"/jobs/new"), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Until(`!document.querySelector('#title').checkVisibility() && !document.querySelector('.planjob').checkVisibility()`)
	x.Run(browsertest.Click(".fold > summary"))
	x.Until(`document.querySelector('#title').checkVisibility()`)
	x.Run(browsertest.Script(`document.querySelector('.fold').scrollIntoView()`))
	picture(t, x, "newjob-folded-390-dark.png")
	x.Run(chromedp.SendKeys(chromedp.CSS("#title"), "Titled"), chromedp.SendKeys(chromedp.CSS("#prompt"), "Do it"), browsertest.Click(".newjob > .row > button"))
	x.Until(`location.pathname.match(/^.jobs.[0-9]+$/) && document.querySelector('h1').innerText === 'Titled'`)

	// On a screen: by its button or Ctrl K; what is typed last counts, also when Enter comes at once; a model is chosen in place.
	x = b.Tab(t)
	x.Run(screen(1280, 844), chromedp.Navigate(r.server.URL+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), browsertest.Click(".find-any"), chromedp.WaitVisible(chromedp.CSS("dialog input")))
	x.Until(`document.querySelectorAll('dialog li').length > 10 && document.querySelector('.find-any kbd').checkVisibility()`)
	x.Run(chromedp.KeyEvent("a"))
	picture(t, x, "palette-1280-light.png")
	x.Run(chromedp.KeyEvent("\x1b"), browsertest.Click(".find-any"), chromedp.WaitVisible(chromedp.CSS("dialog input")), chromedp.KeyEvent("gemma\r"))
	x.Until(`document.querySelector('#composer select').value === 'gemma4:27b' && document.activeElement.id === 'ask' && !document.querySelector('dialog')`)
	for typed, path := range map[string]string{"house\r": "/progress#project-1", "briefing\r": "/agents/briefing", "new job\r": "/jobs/new", "translate the\r": "/jobs/4", "tram\r": "/chats/1"} {
		x.Run(browsertest.Click(".find-any"), chromedp.WaitVisible(chromedp.CSS("dialog input")), chromedp.KeyEvent(typed))
		x.Until(`location.pathname + location.hash === '` + path + `' && document.documentElement.classList.contains('scripted') && !document.querySelector('dialog')`)
	}

	if wrong := x.Complaints(); len(wrong) > 0 {
		t.Errorf("console: %q", wrong)
	}

	// Logging out sends the form, and leaves no draft behind.
	x.Run(browsertest.Script(`localStorage.setItem('draft /x', 'secret')`), browsertest.Click(".rail .rest .logout button"))
	x.Until(`location.pathname === '/logout' && localStorage.length === 0`)
}

func TestProgressInABrowser(t *testing.T) {
	r, _ := wholeRig(t)
	x := browsertest.Start(t).Tab(t)
	x.Run(screen(390, 844), chromedp.Navigate(r.server.URL+"/progress"), chromedp.WaitReady(chromedp.CSS("html.scripted")))

	// The gate is a diamond at the end of its phase; the handoff from one note to the other is the one with a star, at its beginning.
	x.Until(`document.querySelectorAll('.gantt .gate').length === 1 && document.querySelectorAll('.gantt .star').length === 1`)
	x.Until(`(() => {
		const row = name => [...document.querySelectorAll('.gantt g')].find(g => g.querySelector('title').textContent.startsWith(name));
		const box = e => e.getBoundingClientRect(), gate = row('House › Before the wipe'), star = row('House › Kitchen');
		const bar = box(gate.querySelector('.all')), diamond = box(gate.querySelector('.gate'));
		return Math.abs((diamond.left + diamond.right) / 2 - bar.right) < 2 && diamond.width === diamond.height && getComputedStyle(gate.querySelector('.gate')).fill !== 'none' &&
			star.querySelector('.star').textContent === '★' && box(star.querySelector('.star')).right <= box(star.querySelector('.all')).left + 4;
	})()`)
	// It scrolls in its own box, and the sign-offs of the gate are numbered one to twelve.
	x.Until(`(e => e.scrollWidth > e.clientWidth)(document.querySelector('.gantt').parentElement) && document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
	x.Until(`(l => l.length === 12 && l.every(d => getComputedStyle(d, '::before').content.includes('counter(sign)') && getComputedStyle(d, '::before').counterIncrement === 'sign 1'))([...document.querySelectorAll('.signoffs > li > div')]) && getComputedStyle(document.querySelector('.signoffs')).counterReset === 'sign 0'`)
	x.Run(browsertest.Script(`document.querySelector('.signoffs').scrollIntoView()`))
	picture(t, x, "signoffs-390-light.png")
	x.Run(browsertest.Click(".signoffs button[aria-label='Keys printed']"))
	x.Until(`document.querySelector(".signoffs button[aria-label='Keys printed']").getAttribute('aria-checked') === 'true' && document.querySelector('.signoffs').closest('details').innerText.includes('2 of 11')`)
	if wrong := x.Complaints(); len(wrong) > 0 {
		t.Errorf("console: %q", wrong)
	}
}
