package graph

import (
	"context"
	"iter"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestAClaimIsStruckForWhatItsQuoteDoesNotHave(t *testing.T) {
	sources := []Source{passage("a.md", "The pump was installed in March 2019. It cost 12.400,50 euros, and draws 1,200 watts. Twice a year the filter is washed; see https://example.org/pump."),
		passage("b.md", "Die Wärmepumpe läuft seit dem 03.05.2021 mit R290 und braucht 3,5 kW.")}
	for draft, want := range map[string]string{
		`It was put in in March 2019 [1: "installed in March 2019"].`:                   "",
		`It was put in in 03/2019 [1: "installed in March 2019"].`:                      "",
		`It cost 12,400.50 euros [1: "cost 12.400,50 euros"].`:                          "",
		`It draws 1200 W [1: “draws 1,200 watts”].`:                                     "",
		`The filter is washed 2 times a year [1: "Twice a year the filter is washed"].`: "",
		`Since 3 May 2021 it runs [2: "seit dem 03.05.2021"].`:                          "",
		`It runs on R290 and takes 3.5 kW [2: „R290 und braucht 3,5 kW“].`:              "",
		`More at https://example.org/pump [1: "see https://example.org/pump"].`:         "",
		`It draws 1,200 watts [1].`:                                                     "",
		`1. It draws 1,200 watts [1].`:                                                  "",
		`It was put in in 2018 [1: "installed in March 2019"].`:                         notItsNumber,
		`It draws 1,200 watts and is 93 % efficient [1: "draws 1,200 watts"].`:          notItsNumber,
		`It draws 200 watts [1: "draws 1,200 watts"].`:                                  notItsNumber,
		`It takes 35 kW [2: "braucht 3,5 kW"].`:                                         notItsNumber,
		`It is washed 3 times a year [1: "Twice a year the filter is washed"].`:         notItsNumber,
		`It runs on R290 [1: "mit R290"].`:                                              notItsWords,
		`It is silent [1: "it is silent as the grave"].`:                                notItsWords,
		`The maker says "it is silent as the grave" [1].`:                               notItsWords,
		`More at https://evil.example/x [1: "see https://example.org/pump"].`:           notItsAddress,
		`It was put in [3: "installed"].`:                                               noSuchSource,
		`It was put in [0].`:                                                            noSuchSource,
		`It was put in.`:                                                                citesNothing,
		`# It explodes at 40 bar`:                                                       citesNothing,
		`Everybody who has ever owned such a thing knows that it is a danger to the house, to the garden and to all who live there:`: citesNothing,
	} {
		all := claims(draft, len(sources))
		if len(all) != 1 {
			t.Fatalf("%q: %d claims", draft, len(all))
		}
		c := all[0]
		if c.ground(sources); c.Struck != want {
			t.Errorf("%q: struck %q, want %q", draft, c.Struck, want)
		}
		for i, e := range c.Evidence {
			if from := sources[c.Sources[i]-1].Quote; from[e.Start:e.End] != e.Quote {
				t.Errorf("%q: [%d, %d) is not %q", draft, e.Start, e.End, e.Quote)
			}
		}
	}
	c := claims(`It cost much [1: "euros, and draws"].`, 2)[0]
	if c.ground(sources); len(c.Evidence) != 1 || c.Evidence[0].Quote != "It cost 12.400,50 euros, and draws 1,200 watts." {
		t.Errorf("the quote is not the sentence around it: %+v", c.Evidence)
	}
}

func TestWhatAClaimCouldLoadOrLeadToIsTakenOut(t *testing.T) {
	for text, want := range map[string]string{
		`The pump ![x](https://evil.example/p.png?d=secret) runs [1].`: "The pump x runs.",
		`See [the page](https://evil.example) [1].`:                    "See the page.",
		`It ![[secret.md]] runs [1].`:                                  "It secret.md runs.",
		`It <img src=https://evil.example/x> runs [1].`:                `It \<img src=https://evil.example/x> runs.`,
	} {
		c := claims(text, 1)[0]
		if got := c.Plain(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsNoSourceIsLeftOutAndSaidWhy(t *testing.T) {
	page := func(path, text string) Source {
		s := passage(path, text)
		s.Collection, s.URL = "web", path
		return s
	}
	long := "The refrigerant of this heat pump is propane, which is named R290, and the outdoor unit holds less than a kilogram of it, so no special room is needed for the machine."
	dated := page("https://blog.example/dated", "A note by a fitter on how loud the outdoor unit of such a machine is at night, and what a wall behind it does.")
	dated.Published = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	found := []Source{
		passage("tiny.md", "R290."),
		page("https://blog.example/1", long),
		page("https://copy.example/1", long+" Read more."),
		page("https://a.example/404", "Error 404 - page not found. Go back to the start page or search for something else here."),
		page("https://b.example/login", "Please log in to continue reading this article about heat pumps."),
		page("https://c.example/robot", "Just a moment... Verifying you are human. Enable JavaScript and cookies to continue to the page."),
		page("https://d.example/seo", strings.Repeat("heat pump best heat pump cheap heat pump price ", 8)),
		page("https://e.example/shop", "Buy now at the lowest price! Limited offer with free shipping, click here and order now, your discount code waits for you in the shop."),
		page("https://f.example/empty", "Menu Home Contact"),
		page("https://g.example/links", "[a](x) [b](x) [c](x) [d](x) [e](x) [f](x) words of navigation and of nothing else at all on this page here"),
		dated,
		page("https://www.energy.gov/pumps", "Heat pumps move heat instead of making it, and so use a third of the electricity of resistance heating in a mild climate."),
	}
	kept, dropped := sift(found)
	kept, twins := distinct(kept)
	dropped = append(dropped, twins...)
	var names []string
	for _, k := range kept {
		names = append(names, k.Path)
	}
	if want := []string{"tiny.md", "https://www.energy.gov/pumps", "https://blog.example/dated", "https://blog.example/1"}; !reflect.DeepEqual(names, want) {
		t.Errorf("kept %q, want %q", names, want)
	}
	why := map[string]string{}
	for _, d := range dropped {
		why[d.Path] = d.Why
	}
	for path, want := range map[string]string{"https://copy.example/1": "the same as https://blog.example/1", "https://a.example/404": "error", "https://b.example/login": "login", "https://c.example/robot": "robots",
		"https://d.example/seo": `repeats "heat"`, "https://e.example/shop": "to sell", "https://f.example/empty": "next to nothing", "https://g.example/links": "list of links"} {
		if !strings.Contains(why[path], want) {
			t.Errorf("%s: %q, want %q", path, why[path], want)
		}
	}
	if len(dropped) != 8 {
		t.Errorf("%+v", dropped)
	}
}

func TestABudgetOfTimeEndsAQuestionThatTakesTooLong(t *testing.T) {
	slow := &scholar{says: map[string]func(string) string{"draft": func(string) string { return "The filter is washed in spring [1]. It is so [1]." }}}
	q := newInquiries(t, slow)
	q.Budget = Budget{Time: 5 * time.Second}
	q.Reader = streamer(func(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
		if !strings.HasPrefix(req.Messages[0].Text(), "Do the sources") {
			return slow.Stream(ctx, req)
		}
		return func(yield func(llm.Event, error) bool) {
			<-ctx.Done()
			yield(llm.Event{}, ctx.Err())
		}
	})
	a, err := inquiry(t, q, "When is the filter washed?")
	if err != nil || !strings.HasPrefix(a.Message.Text(), saysNot) || !strings.Contains(a.Message.Text(), "as far as the budget went (5s)") {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
	q.Budget = Budget{Calls: 1} // graded, and nothing written
	q.Reader = slow
	a, err = inquiry(t, q, "When is the filter washed?")
	if err != nil || !strings.HasPrefix(a.Message.Text(), notReached) || len(a.Citations) != 2 {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
	q.Store.Cost = func(string, string, llm.Usage) llm.Count { return llm.Known(700) }
	q.Budget = Budget{MicroUSD: 1400} // two questions
	a, err = inquiry(t, q, "When is the filter washed?")
	if err != nil || !strings.Contains(a.Message.Text(), "as far as the budget went ($0.0014)") {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
}
