package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
)

var update = flag.Bool("update", false, "write testdata/trust anew, from its seed")

const trustFile = "testdata/trust/cases.json"

// A trustCase is a question, the documents that are there, and what a model was recorded to say of them.
type trustCase struct {
	Name     string       `json:"name"`
	Question string       `json:"question"`
	Notes    []trustText  `json:"notes"` // of the vault; in the order of their paths
	Pages    []trustText  `json:"pages"` // of the collection web
	Draft    string       `json:"draft"` // the sources are numbered: first note, page, the other notes
	Claims   []trustClaim `json:"claims"`
}

type trustText struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// A trustClaim is a statement of a draft: whether what it cites says it, how it is wrong otherwise, and what the recorded reader answered who saw
// the claim and its quote.
type trustClaim struct {
	Text    string `json:"text"`    // without its mark
	Attack  string `json:"attack"`  // "" none: what it cites says so
	Verdict string `json:"verdict"` // as recorded
}

// What is wrong with claims. The first six are struck whoever reads, the last two by the reader.
const (
	wrongNumber  = "another number than its quote has"
	madeUp       = "a number that nobody has"
	absentSource = "a source that there is not"
	otherQuote   = "the words of another source"
	madeUpQuote  = "words that stand nowhere"
	noCitation   = "no citation"
	tooStrong    = "stronger than its quote"
	turned       = "the opposite of its quote"
)

var byForm = []string{wrongNumber, madeUp, absentSource, otherQuote, madeUpQuote, noCitation}

// trustWords are what the cases are made of: things, makers and what is said of them, in two languages.
var trustWords = []struct {
	things, makers []string
	question       string
	facts          []string // %[1]s the thing, %[2]s the maker, %[3]d to %[5]d numbers
	says           []string // what a careful writer makes of the fact of the same place
	hedged, strong string
	denied, turned string
	other          string // of the note about another thing, %[1]s, with the numbers of its own
	otherSays      string
	nobody         string
}{
	{[]string{"heat pump", "boiler", "water tank", "inverter", "wood stove", "ventilator", "well pump", "battery", "solar roof", "cold room", "greenhouse", "wind turbine"},
		[]string{"Nordwind", "Kestrel", "Albrecht", "Halloway", "Osterhaus", "Tamarack"},
		"What is known about the %[2]s %[1]s?",
		[]string{"The %[2]s %[1]s was installed in %[3]d by two fitters.", "Its filter has to be cleaned every %[4]d weeks.", "At full load the %[1]s draws %[5]d watts."},
		[]string{"It was installed in %[3]d", "The filter is cleaned every %[4]d weeks", "Full load takes %[5]d watts"},
		"Some owners report that the %[2]s %[1]s may start late on very cold mornings.", "The %[1]s never starts on cold mornings",
		"The guarantee of the %[2]s %[1]s does not cover damage by frost.", "The guarantee covers damage by frost",
		"The other one, a Perrin %[1]s in the shed, was bought for %[5]d euros and is out of use.", "It was bought for %[5]d euros",
		"It won a prize for its quiet fan"},
	{[]string{"Wärmepumpe", "Heizung", "Zisterne", "Photovoltaik", "Lüftung", "Kühltruhe", "Werkbank", "Gartenpumpe"},
		[]string{"Nordwind", "Albrecht", "Osterhaus", "Lindner", "Brandes"},
		"Was ist über die %[1]s von %[2]s bekannt?",
		[]string{"Die %[1]s von %[2]s wurde %[3]d eingebaut.", "Ihr Filter wird alle %[4]d Wochen gereinigt.", "Unter voller Last braucht die %[1]s %[5]d Watt."},
		[]string{"Eingebaut wurde sie %[3]d", "Der Filter wird alle %[4]d Wochen gereinigt", "Volle Last braucht %[5]d Watt"},
		"Manche Besitzer der %[1]s von %[2]s berichten, sie könne an sehr kalten Tagen spät anlaufen.", "Die %[1]s läuft an kalten Tagen nie an",
		"Die Garantie der %[1]s von %[2]s gilt nicht für Schäden durch Frost.", "Die Garantie gilt für Schäden durch Frost",
		"Die andere, eine %[1]s von Perrin im Schuppen, kostete %[5]d Euro und ist außer Betrieb.", "Gekostet hat sie %[5]d Euro",
		"Sie gewann einen Preis für ihren leisen Lüfter"},
}

const trustCases = 48

// makeTrust makes the cases of a seed.
func makeTrust(seed uint64) []trustCase {
	r := rand.New(rand.NewPCG(26, seed))
	pick := func(all []string) string { return all[r.IntN(len(all))] }
	var cases []trustCase
	for n := range trustCases {
		w := trustWords[n%3/2] // two of three in English
		thing, maker := pick(w.things), pick(w.makers)
		year, weeks, watts, price := 1990+r.IntN(36), 2+r.IntN(40), 300+r.IntN(90)*25, 200+r.IntN(70)*10
		f := func(format string) string {
			out := strings.NewReplacer("%[1]s", thing, "%[2]s", maker, "%[3]d", fmt.Sprint(year), "%[4]d", fmt.Sprint(weeks), "%[5]d", fmt.Sprint(watts)).Replace(format)
			return strings.ToUpper(out[:1]) + out[1:]
		}
		g := func(format string) string {
			return strings.NewReplacer("%[1]s", thing, "%[5]d", fmt.Sprint(price)).Replace(format)
		}
		c := trustCase{Name: fmt.Sprintf("case-%02d", n), Question: f(w.question)}
		title := "# " + maker + " " + thing + "\n\n"
		c.Notes = []trustText{{c.Name + "/a-" + slug(thing) + ".md", title + f(w.facts[0]) + " " + f(w.facts[1]) + "\n"}, {c.Name + "/b-service.md", title + f(w.facts[2]) + " " + f(w.denied) + "\n"},
			{c.Name + "/c-shed.md", title + g(w.other) + "\n"}}
		c.Pages = []trustText{{fmt.Sprintf("https://%s.example.org/%s", strings.ToLower(maker), c.Name), title + f(w.hedged) + "\n"}}
		// Numbers of the sources: note a is 1, the page 2, note b 3, note c 4.
		words := map[int][]string{1: {f(w.facts[0]), f(w.facts[1])}, 2: {f(w.hedged)}, 3: {f(w.facts[2]), f(w.denied)}, 4: {g(w.other)}}
		cut := func(s string) string { return strings.TrimSuffix(s, ".") }
		part := func(s string) string { // some of the words that are there, as models quote
			all := strings.Fields(cut(s))
			from := r.IntN(2)
			return strings.Join(all[from:], " ")
		}
		var lines []string
		add := func(text, mark, attack, verdict string) {
			c.Claims = append(c.Claims, trustClaim{text, attack, verdict})
			lines = append(lines, strings.TrimSpace(text+" "+mark)+".")
		}
		mark := func(source int, quote string) string { return fmt.Sprintf("[%d: \"%s\"]", source, quote) }
		yes := func() string { // small models answer in many ways, and are wrong at times: a good claim is struck then
			return []string{`{"supported": true}`, `{"supported":true}`, "Yes.\n```json\n{\"supported\": true}\n```", `{"supported": true}`, `{"supported": false}`, `{"supported": true}`, `{"supported": true}`, `{"supported":true}`}[r.IntN(8)]
		}
		no := func() string {
			return []string{`{"supported": false}`, "The source does not say so. {\"supported\":false}"}[r.IntN(2)]
		}
		good := []func(){
			func() { add(f(w.says[0]), mark(1, part(words[1][0])), "", yes()) },
			func() { add(f(w.says[1]), mark(1, part(words[1][1])), "", yes()) },
			func() { add(f(w.says[2]), mark(3, part(words[3][0])), "", yes()) },
			func() { add(g(w.otherSays), "[4]", "", yes()) },
		}
		r.Shuffle(len(good), func(i, j int) { good[i], good[j] = good[j], good[i] })
		for _, one := range good[:3] {
			one()
		}
		bad := map[string]func(){
			wrongNumber: func() {
				add(strings.Replace(f(w.says[0]), fmt.Sprint(year), fmt.Sprint(year+1+r.IntN(3)), 1), mark(1, part(words[1][0])), wrongNumber, no())
			},
			madeUp: func() {
				add(f(w.says[1])+fmt.Sprintf(", %d %%", 41+r.IntN(50)), mark(1, part(words[1][1])), madeUp, no())
			},
			absentSource: func() { add(f(w.says[2]), mark(5+r.IntN(40), part(words[3][0])), absentSource, yes()) },
			otherQuote:   func() { add(f(w.says[2]), mark(1, part(words[3][0])), otherQuote, yes()) },
			madeUpQuote:  func() { add(f(w.nobody), mark(1+r.IntN(4), f(w.nobody)), madeUpQuote, yes()) },
			noCitation:   func() { add(f(w.nobody), "", noCitation, yes()) },
			tooStrong:    func() { add(f(w.strong), mark(2, part(words[2][0])), tooStrong, no()) },
			turned:       func() { add(f(w.turned), mark(3, part(words[3][1])), turned, no()) },
		}
		kinds := append(slices.Clone(byForm), tooStrong, turned)
		for i := range 3 {
			bad[kinds[(n+3*i)%len(kinds)]]()
		}
		c.Draft = strings.Join(lines, []string{" ", "\n"}[r.IntN(2)])
		cases = append(cases, c)
	}
	return cases
}

func slug(s string) string { return strings.ReplaceAll(strings.ToLower(s), " ", "-") }

// The cases are those that their seed makes: what is measured cannot be changed by hand.
func TestTheCasesOfTrustAreThoseOfTheirSeed(t *testing.T) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(makeTrust(1)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(trustFile, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if had, err := os.ReadFile(trustFile); err != nil || !bytes.Equal(had, b.Bytes()) {
		t.Errorf("%s is not what its seed makes (%v): go test ./llm-runner/internal/graph -run Trust -update", trustFile, err)
	}
}

// TestTrust has recorded models answer 48 questions from documents in a real library, and lie in every third sentence or more. It counts what is shown.
func TestTrust(t *testing.T) {
	text, err := os.ReadFile(trustFile)
	if err != nil {
		t.Fatal(err)
	}
	var cases []trustCase
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) < 40 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	lib, stored := trustLibrary(t, cases)
	st, _ := newStore(t)
	for _, reader := range []string{"the recorded reader", "a reader who says yes to everything"} {
		t.Run(reader, func(t *testing.T) {
			careful := reader == "the recorded reader"
			var good, shownGood, shown, quotes, exact int
			attacks, struck := map[string]int{}, map[string]int{}
			for _, c := range cases {
				a := trustAnswer(t, st, lib, c, careful)
				for _, claim := range c.Claims {
					// What is shown is the claim with a number behind it.
					stands := strings.Contains(a.Message.Text(), claim.Text+" [") || claim.Attack != "" && !shownAsGood(c, claim) && strings.Contains(a.Message.Text(), claim.Text)
					switch {
					case claim.Attack == "":
						good++
						if stands && (!careful || !strings.Contains(claim.Verdict, "false")) {
							shown, shownGood = shown+1, shownGood+1
						}
					case stands && !shownAsGood(c, claim):
						attacks[claim.Attack]++
						shown++
						if careful {
							t.Errorf("%s: %q stands, with %s:\n%s", c.Name, claim.Text, claim.Attack, a.Message.Text())
						}
					default:
						attacks[claim.Attack]++
						struck[claim.Attack]++
					}
				}
				for _, q := range a.Citations {
					quotes++
					if from := stored[q.Path]; q.Start >= 0 && q.End <= len(from) && q.Start < q.End && from[q.Start:q.End] == q.Quote {
						exact++
					} else {
						t.Errorf("%s: %s [%d, %d) is not %q", c.Name, q.Path, q.Start, q.End, q.Quote)
					}
				}
			}
			supported := 100 * float64(shownGood) / float64(max(shown, 1))
			t.Logf("%d questions: %d statements shown, %.1f %% supported by their quote; %d of %d true ones shown; %d of %d quotes stand byte for byte in their source", len(cases), shown, supported, shownGood, good, exact, quotes)
			for _, kind := range append(slices.Clone(byForm), tooStrong, turned) {
				t.Logf("struck: %d of %d with %s", struck[kind], attacks[kind], kind)
				if struck[kind] < attacks[kind] && (careful || slices.Contains(byForm, kind)) {
					t.Errorf("only %d of %d with %s", struck[kind], attacks[kind], kind)
				}
				if attacks[kind] < 12 {
					t.Errorf("only %d with %s were tried", attacks[kind], kind)
				}
			}
			if careful && supported < 90 || exact < quotes || quotes < shownGood/2 || shownGood*100 < good*75 {
				t.Errorf("%.1f %% of what is shown is supported, %d of %d quotes are exact, %d of %d true statements are shown", supported, exact, quotes, shownGood, good)
			}
		})
	}
}

// shownAsGood says that a case has a true claim of the same words, which cites rightly.
func shownAsGood(c trustCase, lie trustClaim) bool {
	return slices.ContainsFunc(c.Claims, func(other trustClaim) bool { return other.Attack == "" && other.Text == lie.Text })
}

// trustLibrary is a library with all documents, and what each of them says.
func trustLibrary(t *testing.T, cases []trustCase) (*library.Library, map[string]string) {
	t.Helper()
	dir, stored := t.TempDir(), map[string]string{}
	notes := filepath.Join(dir, "notes")
	for _, c := range cases {
		for _, n := range c.Notes {
			at := filepath.Join(notes, filepath.FromSlash(n.Path))
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte(n.Text), 0o600); err != nil {
				t.Fatal(err)
			}
			stored[n.Path] = n.Text
		}
	}
	d, err := db.Open(t.Context(), filepath.Join(dir, "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	source, err := library.Dir(notes)
	if err != nil {
		t.Fatal(err)
	}
	lib, err := library.New(t.Context(), library.Config{DB: d, Documents: d, Source: source})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lib.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		for _, p := range c.Pages {
			if err := lib.Put(t.Context(), library.Web, library.Document{Path: p.Path, Text: []byte(p.Text)}); err != nil {
				t.Fatal(err)
			}
			stored[p.Path] = p.Text
		}
	}
	return lib, stored
}

// trustAnswer has the recorded model answer a case.
func trustAnswer(t *testing.T, st *Store, lib *library.Library, c trustCase, careful bool) llm.Answer {
	t.Helper()
	s := script.Script{}
	rule := func(match, text string) { s.Reply = append(s.Reply, script.Rule{Match: match, Text: text}) }
	for _, claim := range c.Claims {
		verdict := claim.Verdict
		if !careful {
			verdict = `{"supported": true}`
		}
		rule("Claim: "+claim.Text+".", verdict)
	}
	rule("Which of these sources", `{"useful": [1, 2, 3, 4]}`)
	rule("Question: "+c.Question, c.Draft)
	model, err := scripted.From(scripted.Config{}, s)
	if err != nil {
		t.Fatal(err)
	}
	q := &Inquiries{Store: st, Reader: model, Model: func(llm.Request) (string, bool) { return "recorded", true }, Budget: DefaultBudget,
		Search: func(ctx context.Context, collection, query string, n int, private bool) ([]Source, error) {
			hits, err := lib.Find(ctx, library.Request{Query: query, Limit: n, Private: private, Filter: library.Filter{Collection: collection, Path: []string{c.Name}}})
			all := make([]Source, len(hits))
			for i, h := range hits {
				all[i] = Source{Citation: h.Citation, Title: h.Title}
				if h.Collection != library.Notes {
					all[i].Collection = h.Collection
				}
			}
			slices.SortFunc(all, func(a, b Source) int { return cmp.Compare(a.Path, b.Path) }) // the recorded answers name them by number
			return all, err
		},
		Stands: func(ctx context.Context, s Source) (llm.Citation, bool) {
			found, ok, err := lib.Cite(ctx, cmp.Or(s.Collection, library.Notes), s.Citation)
			return found, ok && err == nil
		}}
	a, err := llm.Collect(q.Stream(t.Context(), llm.Request{Messages: []llm.Message{llm.Says(llm.User, c.Question)}}))
	if err != nil {
		t.Fatal(err)
	}
	return a
}
