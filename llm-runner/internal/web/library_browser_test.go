//go:build prove

package web

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/test/browsertest"
)

func TestTheLibraryInABrowser(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Garden/pond.md": "# Pond\n\nThe pond is drained in March, before the toads come.\n", "Private/doctor.md": "# Doctor\n\nThe appointment is in May.\n", "bad.md": "\xff",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site, l := withDocuments(t, dir, "Private", "Privat")
	server := httptest.NewServer(site)
	t.Cleanup(server.Close)
	b := browsertest.Start(t)
	x := b.Tab(t)
	scripted := chromedp.WaitReady(chromedp.CSS("html.scripted"))
	var files []string
	for _, name := range []string{"report.pdf", "boiler.docx"} {
		path, err := filepath.Abs(filepath.Join("..", "extract", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}

	// Documents are added by the form, found as one types, and open at the passage.
	x.Run(screen(1280, 900), chromedp.Navigate(server.URL+"/library"), scripted, chromedp.SetUploadFiles(chromedp.CSS("input[type=file]"), files), browsertest.Click("form[action='/library/documents'] button"))
	x.Until(`document.querySelector('main').innerText.includes('2 in uploads') && document.querySelector('main').innerText.includes('Water report')`)
	x.Run(scripted, chromedp.SendKeys(chromedp.CSS("[data-search]"), "laboratory annex"))
	x.Until(`document.querySelector('#found .trail')?.innerText.includes('report.pdf') && document.querySelector('#found .trail').innerText.includes('page 3')`)
	x.Run(browsertest.Click("#found .hits a"))
	x.Until(`location.pathname === '/documents/uploads' && document.querySelector('mark')?.innerText.startsWith('Annex') && document.querySelector('.hit').getBoundingClientRect().top < innerHeight`)

	// The lists follow what changes, and what did not change is the same element still: with its focus, where it was, and what is typed.
	x.Run(chromedp.Navigate(server.URL+"/library"), scripted, browsertest.Script(`document.querySelector('.shelf [data-key$="report.pdf"] button').focus(); scrollTo(0, 200);
		document.querySelector('input[name=pattern]').value = 'half a pat'; window.row = document.activeElement; window.title = document.querySelector('#live p')`))
	put := func(name, text string) {
		t.Helper()
		if err := l.Put(t.Context(), library.Uploads, library.Document{Path: name, Title: "Notes " + name, Text: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	put("a-new-one.md", "Something new.\n")
	if err := os.WriteFile(filepath.Join(dir, "worse.md"), []byte("\xff\xfe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.Until(`document.querySelector('.shelf').innerText.includes('a-new-one.md') && document.querySelector('#trouble').innerText.includes('worse.md') && document.querySelector('#live').innerText.includes('3 in uploads')`)
	x.Until(`document.activeElement === row && row.value === 'report.pdf' && scrollY > 100 && title.isConnected && document.querySelector('input[name=pattern]').value === 'half a pat'`)
	if err := l.Forget(t.Context(), library.Uploads, "a-new-one.md"); err != nil {
		t.Fatal(err)
	}
	x.Until(`!document.querySelector('.shelf').innerText.includes('a-new-one.md') && document.activeElement === row`)
	// Who does not look is told when they look again, once.
	x.Run(browsertest.Script(`window.fetched = 0; const real = fetch; window.fetch = (...a) => { fetched++; return real(...a); };
		window.unseen = true; Object.defineProperty(document, 'hidden', { get: () => unseen, configurable: true });
		window.heard = 0; window.beside = new EventSource('/library/events'); beside.addEventListener('change', () => heard++)`))
	x.Until(`beside.readyState === EventSource.OPEN`)
	for n := range 3 { // by the last the page has been told of the first
		put("later.md", fmt.Sprintf("Something later, %d.\n", n))
		x.Until(fmt.Sprintf(`heard > %d`, n))
	}
	x.Until(`fetched === 0 && !document.querySelector('.shelf').innerText.includes('later.md')`)
	x.Run(browsertest.Script(`unseen = false; document.dispatchEvent(new Event('visibilitychange'))`))
	x.Until(`document.querySelector('.shelf').innerText.includes('later.md')`)
	if err := l.Forget(t.Context(), library.Uploads, "later.md"); err != nil {
		t.Fatal(err)
	}
	if wrong := x.Complaints(); len(wrong) > 0 {
		t.Errorf("the console complains: %q", wrong)
	}

	// Nothing is wider than a phone, and people may want to look.
	shots := os.Getenv("SCREENSHOTS")
	for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
		for _, theme := range []string{"light", "dark"} {
			for name, path := range map[string]string{"library": "/library", "library-found": "/library?q=pond+laboratory", "document": "/documents/uploads?path=report.pdf&from=163&to=226"} {
				tab := b.Tab(t)
				tab.Run(screen(size[0], size[1]),
					browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
					chromedp.Navigate(server.URL+path), scripted)
				tab.Until(`document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
				if shots != "" {
					tab.Run(chromedp.Sleep(200 * time.Millisecond))
					capture(t, tab, shots, fmt.Sprintf("%s-%d-%s.png", name, size[0], theme))
					if name == "library" {
						tab.Run(browsertest.Script(`scrollTo(0, 1e6)`), chromedp.Sleep(100*time.Millisecond))
						capture(t, tab, shots, fmt.Sprintf("%s-end-%d-%s.png", name, size[0], theme))
					}
				}
				tab.Close()
			}
		}
	}
}
