package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

func contains(t testing.TB, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

// today is what the bench's clock shows; its facts are those of a day on which something is wrong.
func eventful() Sources {
	return Sources{
		Changed: func(context.Context, time.Time) ([]Changed, error) {
			return []Changed{{Path: "house/heating.md", Title: "Heating"}, {Path: "diary/secret.md", Title: "Secret plans", Private: true}}, nil
		},
		Tasks: func(context.Context) ([]Passage, error) {
			return []Passage{{Path: "house/heating.md", Line: 3, Text: "- [ ] Call the plumber 📅 2026-01-30\n- [x] Done 📅 2026-01-30\n- [ ] Wash the filter (due 2026-02-03)\n- [ ] Far away 2026-05-01\n- [ ] No day\n```\n- [ ] code 2026-01-01\n```\n"}}, nil
		},
		Projects: func(context.Context) ([]Project, error) {
			return []Project{{Title: "Garden", Path: "garden.md", Done: 3, Total: 7, Next: "Dig 📅 2026-12-01 ➕ 2026-01-10"}, {Title: "Over", Path: "x.md", Done: 2, Total: 2}}, nil
		},
		Work: func(context.Context, time.Time) ([]Work, error) {
			return []Work{{ID: 1, Title: "Minutes", State: "done"}, {ID: 2, Title: "Plan", State: "failed", Reason: "no such model"}, {ID: 3, Title: "Long", State: "held", Reason: "groq: used up"}}, nil
		},
		Backups: func(context.Context, time.Time) ([]string, int, error) {
			return []string{"gitea (fast): the last run made no whole snapshot"}, 12, nil
		},
		Used: func(context.Context, time.Time) ([]Used, error) {
			return []Used{{Provider: "groq", Requests: 12, Tokens: 34000, MicroUSD: 21000, Limit: "81 % of requests per day"}, {Provider: "idle"}}, nil
		},
		Search: func(_ context.Context, q string) ([]Hit, error) {
			if q == "broken" {
				return nil, errors.New("SearXNG does not answer")
			}
			return []Hit{{Title: "A [page] <b>", URL: "https://example.org/a"}, {Title: "b", URL: "javascript:alert(1)"}}, nil
		},
		Feed: func(_ context.Context, url string) ([]Headline, error) {
			now := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
			switch url {
			case "https://undated.example/rss":
				return []Headline{{Title: "Once"}}, nil
			case "https://quiet.example/":
				return []Headline{{Title: "Old", At: now.Add(-30 * 24 * time.Hour)}}, nil
			case "https://gone.example/":
				return nil, errors.New("the server answered 410 Gone")
			}
			news := []Headline{{Title: "Last month", At: now.Add(-30 * 24 * time.Hour)}, {Title: "In ten years", At: now.AddDate(10, 0, 0)}}
			for n := range 7 {
				news = append(news, Headline{Title: fmt.Sprint("Number ", n), URL: fmt.Sprint("https://news.example/", n), At: now.Add(-time.Duration(n+1) * time.Hour)})
			}
			return news, nil
		},
	}
}

const briefingFile = "---\nkind: briefing\ntitle: Briefing\nschedule: \"0 7 * * *\"\ndeliver: [daily, discord]\nsearches: [heat pumps, broken]\n" +
	"feeds: [\"https://www.news.example/feed\", \"https://undated.example/rss\", \"https://quiet.example/\", \"https://gone.example/\"]\n---\nShort, please.\n"

func TestABriefingByRulesIsWorthReading(t *testing.T) {
	b := newBench(t, map[string]string{"briefing": strings.Replace(briefingFile, "kind: briefing", "kind: briefing\nmodel: none", 1)})
	b.config.Facts = eventful()
	b.start()
	x := b.ask("briefing", false)
	text := b.read("Daily/2026-02-01.md")
	contains(t, text, "<!-- generated: briefing -->\n## Briefing\n\n### Backups and drills (!)\n\n- gitea (fast): the last run made no whole snapshot\n",
		"### Jobs (!)\n\n- job 2 failed: Plan (no such model)\n- job 3 is held: Long (groq: used up)\n- 1 finished: Minutes\n",
		"### Due (!)\n\n- 2 days late: Call the plumber ([[house/heating|heating]])\n- Tuesday: Wash the filter ([[house/heating|heating]])\n\n",
		"### Projects\n\n- [[garden|Garden]]: 3 of 7 done; next: Dig\n\n### Open tasks without a day\n\n- No day ([[house/heating|heating]])\n\n", "### Changed notes\n\n- [[house/heating|Heating]]\n- [[diary/secret|Secret plans]]\n",
		"- groq: 12 requests, 34000 tokens, $0.0210; used of its limit: 81 % of requests per day\n\n",
		"### On the web: heat pumps\n\n- [A (page) ‹b>](<https://example.org/a>)\n- b\n", "### On the web: broken (!)\n\n- could not be read: SearXNG does not answer",
		"### News: news.example\n\n- [Number 0](<https://news.example/0>)\n", "- [Number 4](<https://news.example/4>)\n- and 2 more\n", "### News: undated.example\n\n- its entries have no dates",
		"### News: gone.example (!)\n\n- could not be read: the server answered 410 Gone")
	for _, not := range []string{"quiet.example", "Last month", "In ten years", "Number 5"} {
		if strings.Contains(text, not) {
			t.Errorf("the briefing tells of %s:\n%s", not, text)
		}
	}
	if b.model.count() != 0 || x.State != Done {
		t.Errorf("asked %d times; %+v", b.model.count(), x.Run)
	}
	posts := strings.Join(b.posts.posts(), "\n")
	contains(t, posts, "**Briefing, Sunday 1 February 2026**\n**Backups and drills (!)**", "2 days late: Call the plumber (heating)", "1 line of private notes is in the vault only.")
	if strings.Contains(posts, "Secret") || strings.Contains(posts, "[[") {
		t.Error(posts)
	}
}

func TestTheLeadComesFromTheFactsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		says, want, remark string
		private            bool
	}{
		"kept":             {"# Lead\nA backup of gitea failed, and a task is 2 days late. <script>x</script> See [[garden]].", "A backup of gitea failed, and a task is 2 days late. x See garden.", "", true},
		"a number made up": {"There are 99 things to do.", "", "named 99, which is in none of the facts", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, map[string]string{"briefing": briefingFile})
			b.config.Facts = eventful()
			b.start()
			b.model.answer = func(int, llm.Request) (string, error) { return c.says, nil }
			x := b.ask("briefing", false)
			text := b.read("Daily/2026-02-01.md")
			if c.want != "" {
				contains(t, text, "## Briefing\n\nLead "+c.want)
			}
			contains(t, fmt.Sprint(x.Output.Remarks), c.remark)
			if posts := fmt.Sprint(b.posts.posts()); strings.Contains(posts, "days late. x") {
				t.Error("a lead that rests on private notes left the house: " + posts)
			}
			var private []string
			for _, m := range b.model.asked[0].Messages {
				for _, p := range m.Parts {
					if p.Private {
						private = append(private, p.Text)
					}
				}
			}
			if fmt.Sprint(private) != "[- Secret plans\n]" {
				t.Errorf("private parts: %q", private)
			}
		})
	}
}

func TestABriefingWaitsForItsLeadAQuarterOfAnHour(t *testing.T) {
	b := newBench(t, map[string]string{"briefing": briefingFile})
	b.config.Facts = eventful()
	b.start()
	b.model.answer = func(int, llm.Request) (string, error) {
		return "", &llm.BusyError{Provider: "davas", Reason: "davas is down"}
	}
	x := b.ask("briefing", false)
	if x.State != Waiting || !strings.Contains(x.Reason, "davas is down; the briefing comes without a lead at 13:15") {
		t.Fatalf("%+v", x.Run)
	}
	b.until(b.clock().Add(20 * time.Minute))
	if x = b.detail(x.ID); x.State != Done || len(b.posts.posts()) == 0 || !strings.Contains(fmt.Sprint(x.Output.Remarks), "within 15m") {
		t.Errorf("%+v", x.Run)
	}
}

func TestAPersonsDailyNoteIsLeftAsItIs(t *testing.T) {
	begin, end := sectionMarks("x")
	for _, c := range []struct{ name, note, want string }{
		{"none", "", begin + "\nnew\n" + end + "\n"},
		{"at the end", "mine", "mine\n\n" + begin + "\nnew\n" + end + "\n"},
		{"replaced", "a\n" + begin + "\nold\n" + end + "\r\nb", "a\n" + begin + "\nnew\n" + end + "\r\nb"},
		{"of another agent", "<!-- generated: y -->\n<!-- end of generated: y -->\n", "<!-- generated: y -->\n<!-- end of generated: y -->\n\n" + begin + "\nnew\n" + end + "\n"},
		{"its end is gone", "a\n" + begin + "\nold\nmine\n", "a\nold\nmine\n\n" + begin + "\nnew\n" + end + "\n"},
		{"quoted in a line", "see " + begin + " and " + end + "\n", "see " + begin + " and " + end + "\n\n" + begin + "\nnew\n" + end + "\n"},
	} {
		got := string(section([]byte(c.note), "x", "new\n"))
		if got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
		if again := string(section([]byte(got), "x", "new")); again != got {
			t.Errorf("%s: written twice it is %q", c.name, again)
		}
	}
}

func TestANoteThatOnlyProgramsWroteIsKnown(t *testing.T) {
	made := string(section(nil, "x", "text"))
	for note, want := range map[string]bool{made: true, "---\ntags: [day]\n---\n" + string(section([]byte(made), "y", "more")): true, "": false, "mine": false, made + "mine\n": false,
		"<!-- generated: x -->\nno end\n": false} {
		if got := Generated([]byte(note)); got != want {
			t.Errorf("%q: %v", note, got)
		}
	}
}

func TestPostsFit(t *testing.T) {
	long := strings.Repeat("🌻🌻🌻 flowers\n", 900)
	for _, text := range []string{"", "short", long, strings.Repeat("x", 5000), "a\n\n" + strings.Repeat("word ", 500)} {
		all := posts(text, discord.MaxContent)
		for _, p := range all {
			if n := discord.Length(p); n > discord.MaxContent || n == 0 || !strings.HasPrefix(p, strings.TrimSpace(p)) {
				t.Errorf("%d units", n)
			}
		}
		if len(all) > mostPosts || text != "" && len(all) == 0 {
			t.Errorf("%d posts", len(all))
		}
	}
	contains(t, posts(long, discord.MaxContent)[2], "(the rest is in the vault and on the run's page)")
}

// desk plays the queue of jobs.
type desk struct {
	note     string
	asked    []string
	keys     map[string]int64
	findings map[int64]Finding
}

func (d *desk) desk() Desk {
	d.keys, d.findings = map[string]int64{}, map[int64]Finding{}
	return Desk{
		Read: func(_ context.Context, p string) ([]byte, error) {
			if p != "Research topics.md" || d.note == "" {
				return nil, fmt.Errorf("read %s: %w", p, fs.ErrNotExist)
			}
			return []byte(d.note), nil
		},
		Submit: func(_ context.Context, topic, key string) (int64, error) {
			if id, ok := d.keys[key]; ok {
				return id, nil
			}
			d.asked = append(d.asked, topic)
			d.keys[key] = int64(len(d.asked))
			return d.keys[key], nil
		},
		Result:  func(_ context.Context, id int64) (Finding, error) { return d.findings[id], nil },
		Private: func(p string) bool { return strings.HasPrefix(p, "diary/") },
	}
}

func TestResearchSaysWhatIsNew(t *testing.T) {
	d := &desk{note: "---\ntype: list\n---\n# Topics\n- Heat pumps in old houses\n- [x] Finished one\n- [ ] Tariffs\n"}
	b := newBench(t, map[string]string{"research": "---\nkind: research\ntitle: Research\ndeliver: [vault, discord]\n---\n"})
	b.config.Desk = d.desk()
	b.start()
	x := b.ask("research", false)
	if x.State != Waiting || fmt.Sprint(d.asked) != "[Heat pumps in old houses Tariffs]" {
		t.Fatalf("%+v, asked %v", x.Run, d.asked)
	}
	pump := llm.Citation{Path: "house/heating.md", Line: 3}
	d.findings[1] = Finding{Ended: true, Answer: "Old houses need low flow temperatures [1]. Radiators may stay.", Sources: []llm.Citation{pump}, Spent: Spent{500, 7}}
	b.until(b.clock().Add(time.Minute))
	b.start() // a restart while the second one is under way
	d.findings[2] = Finding{Ended: true, Failed: "no such model"}
	b.until(b.clock().Add(time.Minute))
	x = b.detail(x.ID)
	if x.State != Done || x.Tokens != 500 || len(d.asked) != 2 {
		t.Fatalf("%+v", x.Run)
	}
	text := b.read("Agent notes/research/Heat pumps in old houses/2026-02-01.md")
	contains(t, text, "---\ngenerated: true\nagent: research\nrun: 1\n", "*The first look at this topic.*", "Radiators may stay.", "1. [[house/heating|heating]]")
	contains(t, fmt.Sprint(b.posts.posts()), "Old houses need low flow temperatures.", "Nothing was found: job 2 failed (no such model).")

	b.at(at(t, "2026-02-08 12:00"))
	d.note = "1. Heat pumps in old houses\n"
	d.findings[3] = Finding{Ended: true, Answer: "Low flow temperatures are what old houses need [1]. A subsidy of 70 % ended in January [2].",
		Sources: []llm.Citation{pump, {Path: "Subsidies", Collection: "web", URL: "https://example.org/s"}, {Path: "diary/money.md"}}}
	x = b.ask("research", false)
	text = b.read("Agent notes/research/Heat pumps in old houses/2026-02-08.md")
	contains(t, text, "## New since 2026-02-01\n\n- A subsidy of 70 % ended in January.\n- a new source: [Subsidies](<https://example.org/s>)\n", "Low flow temperatures are what")
	if strings.Contains(text, "- Low flow") || x.State != Done {
		t.Error(text)
	}
	contains(t, b.posts.posts()[1], "It rests on private notes")
	if strings.Contains(b.posts.posts()[1], "subsidy") {
		t.Error("private notes left the house")
	}
}

func TestResearchWithoutAModelSaysSo(t *testing.T) {
	d := &desk{note: "- Tariffs\n"}
	b := newBench(t, map[string]string{"research": "---\nkind: research\ndeliver: [vault]\n---\n"})
	b.config.Desk, b.config.Writer = d.desk(), func() bool { return false }
	d.findings[1] = Finding{Ended: true, Answer: "> - [ ] Compare tariffs"}
	b.start()
	contains(t, b.ask("research", false).Output.Text, "### Tariffs\n\nNo model is connected")
	contains(t, b.read("Agent notes/research/Tariffs/2026-02-01.md"), "> - [ ] Compare tariffs")
}

func TestAPersonCancelsARun(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	entered, never := make(chan bool), make(chan struct{})
	b.model.answer = func(n int, _ llm.Request) (string, error) {
		if n == 1 {
			close(entered)
			<-never
			return "", &llm.Error{Kind: llm.Cancelled, Message: "cancelled"}
		}
		return "Again.", nil
	}
	r, err := b.Start(t.Context(), "hello", false, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.pass(t.Context(), b.clock()); err != nil {
		t.Fatal(err)
	}
	<-entered
	if r, err = b.Cancel(t.Context(), r.ID); err != nil || r.State != Cancelled {
		t.Fatalf("%+v, %v", r, err)
	}
	close(never)
	b.settle()
	if x := b.detail(r.ID); x.State != Cancelled || x.Reason != "cancelled by a person" || len(x.Deliveries) != 0 {
		t.Errorf("%+v", x.Run)
	}
	if _, err := b.Cancel(t.Context(), r.ID); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	b.posts.fault = func() (time.Duration, error) { return time.Second, errors.New("away") }
	x := b.ask("hello", false)
	if x.State != Delivering {
		t.Fatalf("%+v", x.Run)
	}
	if _, err := b.Cancel(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	b.posts.fault = nil
	b.until(b.clock().Add(time.Hour))
	if x = b.detail(x.ID); x.State != Cancelled || x.Deliveries[1].State != "skipped" || len(b.posts.posts()) != 0 {
		t.Errorf("%+v", x)
	}
}

func TestMemoryLearns(t *testing.T) {
	b := newBench(t, map[string]string{"memory": "---\nkind: memory\ndeliver: [vault]\n---\n"}).start()
	if x := b.ask("memory", false); x.State != Done || !strings.Contains(x.Output.Text, "Memory is not set up") {
		t.Errorf("%+v", x.Run)
	}
	b.config.Learn = func(_ context.Context, run string) (string, Spent, error) {
		return "1 fact from " + run, Spent{40, 2}, nil
	}
	b.start()
	if x := b.ask("memory", false); x.Output.Text != "1 fact from agent-2" || x.Tokens != 40 || x.MicroUSD != 2 {
		t.Errorf("%+v", x.Run)
	}
	if x := b.ask("memory", true); !strings.Contains(x.Output.Text, "learns nothing") {
		t.Errorf("%+v", x.Run)
	}
}

func TestAgentsCallEachOther(t *testing.T) {
	b := newBench(t, map[string]string{
		"boss":   "---\ntools: [agent_clerk, look]\nbudget: {tool_calls: 3}\n---\nBoss.\n",
		"clerk":  "---\ntools: [agent_boss, agent_errand]\n---\nClerk.\n",
		"errand": "---\ntools: [agent_last]\n---\nErrand.\n", "last": "---\n---\nLast.\n",
	})
	b.box = true
	b.start()
	b.model.answer = func(_ int, req llm.Request) (string, error) {
		last := req.Messages[len(req.Messages)-1]
		who := strings.TrimSuffix(req.Messages[1].Text(), ".")
		if last.Role == llm.Tool {
			return who + " heard: " + last.Parts[0].Result.Text, nil
		}
		return map[string]string{"Boss": `call agent_clerk {"task":"count"}`, "Clerk": `call agent_errand {"task":"go"}`, "Errand": `call agent_last {"task":"no"}`}[who], nil
	}
	if err := b.Service.config.Box.Add(toolbox.Tool{Name: "look", Schema: []byte(`{"type":"object"}`), Run: func(context.Context, toolbox.Call) (toolbox.Result, error) { return toolbox.Result{}, nil }}); err != nil {
		t.Fatal(err)
	}
	x := b.ask("boss", false)
	if x.State != Done || len(x.Children) != 1 {
		t.Fatalf("%+v", x)
	}
	contains(t, x.Output.Text, "Boss heard:", "Clerk heard:", "Errand heard:", "3 agents stand above each other already")
	clerk := b.detail(x.Children[0].ID)
	if clerk.Agent != "clerk" || clerk.Parent != x.ID || clerk.Cause != ByAgent || clerk.Task != "count" || clerk.State != Done || len(clerk.Children) != 1 || clerk.Tokens == 0 || len(clerk.Deliveries) != 0 {
		t.Errorf("%+v", clerk)
	}
	b.model.answer = func(_ int, req llm.Request) (string, error) {
		last := req.Messages[len(req.Messages)-1]
		if last.Role == llm.Tool {
			return last.Parts[0].Result.Text, nil
		}
		if strings.HasPrefix(req.Messages[1].Text(), "Clerk") {
			return `call agent_boss {"task":"again"}`, nil
		}
		return `call agent_clerk {"task":"count"}`, nil
	}
	contains(t, b.ask("boss", false).Output.Text, "agents must not call each other in a circle")

	specs, err := b.Service.config.Box.Specs(t.Context(), 0, []string{"*"})
	if err != nil || len(specs) != 1 || specs[0].Name != "look" {
		t.Errorf("everybody is offered %+v, %v", specs, err)
	}
	if _, err := b.called(t.Context(), toolbox.Call{Run: "job-1-1"}, "clerk", "x"); err == nil || !strings.Contains(err.Error(), "only agents can call agents") {
		t.Error(err)
	}
	if _, err := b.called(t.Context(), toolbox.Call{Run: fmt.Sprint("agent-", x.ID)}, "last", "x"); err == nil || !strings.Contains(err.Error(), "does not list agent_last") {
		t.Error(err)
	}
}

func TestADryRunHasNoEffectsHoweverDeep(t *testing.T) {
	b := newBench(t, map[string]string{"boss": "---\ntools: [agent_clerk, write]\n---\nBoss.\n", "clerk": "---\ntools: [write]\n---\nClerk.\n"})
	b.box = true
	wrote := 0
	b.tools = []toolbox.Tool{{Name: "write", Effects: true, Policy: toolbox.Allow, Schema: []byte(`{"type":"object"}`), Run: func(context.Context, toolbox.Call) (toolbox.Result, error) {
		wrote++
		return toolbox.Result{}, nil
	}}}
	b.start()
	b.model.answer = func(_ int, req llm.Request) (string, error) {
		for _, tool := range req.Tools {
			if tool.Name == "write" && req.Messages[len(req.Messages)-1].Role != llm.Tool {
				return "call write {}", nil
			}
		}
		if req.Messages[1].Text() == "Boss." && req.Messages[len(req.Messages)-1].Role != llm.Tool {
			return `call agent_clerk {"task":"write it"}`, nil
		}
		return "Done.", nil
	}
	if x := b.ask("boss", true); x.State != Done || len(x.Children) != 1 || wrote != 0 {
		t.Errorf("%+v; wrote %d times", x, wrote)
	}
	if x := b.ask("clerk", false); x.State != Done || wrote != 1 {
		t.Errorf("%+v; wrote %d times", x, wrote)
	}
}

func TestABudgetEndsInTheBestAnswerSoFar(t *testing.T) {
	b := newBench(t, map[string]string{
		"calls":  "---\ntools: [look]\nbudget: {tool_calls: 2}\n---\nLook.\n",
		"money":  "---\ntools: [look]\nbudget: {micro_usd: 250}\n---\nLook.\n",
		"tokens": "---\ntools: [look]\nbudget: {tokens: 150}\n---\nLook.\n",
	})
	b.box = true
	b.config.Cost = func(string, string, llm.Usage) llm.Count { return llm.Known(100) }
	b.start()
	n := 0
	b.model.answer = func(_ int, req llm.Request) (string, error) {
		if req.ToolChoice.Mode == "none" {
			return "That is all I found.", nil
		}
		n++
		return fmt.Sprintf(`call look {"n":%d}`, n), nil
	}
	ran := 0
	if err := b.Service.config.Box.Add(toolbox.Tool{Name: "look", Policy: toolbox.Allow, Schema: []byte(`{"type":"object"}`), Run: func(context.Context, toolbox.Call) (toolbox.Result, error) {
		ran++
		return toolbox.Result{Text: "a thing"}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"calls": "2 calls of tools", "money": "$0.0003", "tokens": "150 tokens"} {
		x := b.ask(name, false)
		if x.State != Done || x.Over != want {
			t.Errorf("%s: %+v", name, x.Run)
		}
		contains(t, x.Output.Text, "That is all I found.", "*Its budget ended it here: "+want+".*")
	}
	if ran != 2+3+2 {
		t.Errorf("%d calls", ran)
	}
	dry := b.ask("calls", true)
	contains(t, dry.Output.Text, "That is all I found.")
}
