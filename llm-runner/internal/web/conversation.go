package web

import (
	"fmt"
	"html/template"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// chatPage is the start page and every conversation.
type chatPage struct {
	Chats    []chat.Chat
	More     bool // there are older conversations than these
	Query    string
	Chat     *chat.Chat // nil: a new one
	Messages []message
	Composer composer
	NoModel  bool
	Example  string // a question to begin with
}

type composer struct {
	Action  string
	Parent  int64
	Key     string // sending the form twice asks once
	Text    string // to begin with
	Picker  picker
	Running int64 // the turn that stop would stop; 0 none
}

// message is a question or an answer as a page shows it.
type message struct {
	chat.Message
	Blocks []template.HTML // of an answer
	Line   line
	Branch branch
	// Model and Project are what an edited question asks for: as the conversation did last.
	Model   string
	Project bool
	Tools   bool
	Memory  bool
}

func (m message) Question() bool { return m.Role == llm.User }

// Version changes whenever the message looks different: the script replaces those that did.
func (m message) Version() string {
	v := fmt.Sprintf("%d.%d/%d", m.ID, m.Branch.At, m.Branch.Of)
	if m.Turn != nil {
		v += fmt.Sprintf(".%s.%d", m.Turn.State, m.Turn.Seq)
	}
	return v
}

// branch is a message's place among its alternatives, 1-based.
type branch struct {
	At, Of         int
	Previous, Next int64 // 0: none
}

func branchOf(id int64, siblings []int64) branch {
	at := slices.Index(siblings, id)
	b := branch{At: at + 1, Of: len(siblings)}
	if at > 0 {
		b.Previous = siblings[at-1]
	}
	if at >= 0 && at+1 < len(siblings) {
		b.Next = siblings[at+1]
	}
	return b
}

// line is what stands under an answer.
type line struct {
	*chat.Turn
	Text       bool   // something of the answer has come
	Who        string // the model and machine that are waited for, where no route is known yet
	Branch     branch
	Sources    []source
	Calls      []shownCall
	Plan       *shownPlan // that waits for a person; nil: none does
	Saves      bool       // its report can be saved as a note
	Remembered []recalled
	Elapsed    time.Duration
	CanRetry   bool
}

type source struct {
	llm.Citation
	Number int
	Href   string
}

// Whence says where the sources of an answer are from.
func (l line) Whence() string { return whence(l.Citations) }

func whence(all []llm.Citation) string {
	for _, c := range all {
		if c.Collection != "" {
			return "Sources"
		}
	}
	return "From your notes"
}

// Trail is the headings above the passage.
func (s source) Trail() string { return strings.Join(s.Heading, " \u203a ") }

func (s *Site) line(m chat.Message) line {
	t := m.Turn
	l := line{Turn: t, Text: m.Text != "", Branch: branchOf(m.ID, m.Siblings), CanRetry: t.State.Retryable(), Elapsed: time.Since(t.Started), Calls: s.calls(t), Remembered: s.remembered(t), Plan: s.planOf(t), Saves: s.saves(t)}
	if t.State.Running() && t.Route.Provider == "" {
		if d := s.Router.Decide(route.Ask{Model: t.Asked, Project: t.Project}); len(d.Targets) > 0 {
			l.Who = llm.On(d.Targets[0].Model, d.Targets[0].Provider)
		}
	}
	for i, c := range t.Citations {
		x := source{Citation: c, Number: i + 1}
		if s.Note != nil {
			x.Href = noteLink(c)
		}
		l.Sources = append(l.Sources, x)
	}
	return l
}

// listMost is how many conversations a page lists unless more are asked for.
const listMost = 60

func (s *Site) start(w http.ResponseWriter, r *http.Request) error {
	p := chatPage{NoModel: s.NoModel(), Example: s.Example}
	pick := s.picker(r.FormValue("model"), false) // the palette leads here
	if pick.Missing {
		pick = s.picker("", false)
	}
	p.Composer = composer{Action: "/chats", Key: newKey(), Text: r.FormValue("ask"), Picker: s.withPlans(r.Context(), s.tooled(pick, r.FormValue("tools") != "", true), 0)}
	return s.showChat(w, r, p, frame{Title: "New chat", Nav: "chat"})
}

func (s *Site) chat(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	c, err := s.Chats.Chat(r.Context(), id)
	if err != nil {
		return err
	}
	all, err := s.Chats.Branch(r.Context(), id)
	if err != nil {
		return err
	}
	p := chatPage{Chat: &c, NoModel: s.NoModel()}
	p.Composer = composer{Action: fmt.Sprintf("/chats/%d/messages", id), Key: newKey(), Picker: s.withPlans(r.Context(), s.tooled(s.picker(c.Model, c.Project), c.Tools, c.Memory), id)}
	f := frame{Title: c.Title, Nav: "chat"}
	rendered := s.answers(all)
	for i, m := range all {
		x := message{Message: m, Branch: branchOf(m.ID, m.Siblings), Model: c.Model, Project: c.Project, Tools: c.Tools, Memory: c.Memory}
		if m.Turn != nil {
			x.Blocks, x.Line = rendered[i], s.line(m)
			p.Composer.Parent = m.ID
			switch {
			case m.Turn.State.Running():
				p.Composer.Running, f.Refresh = m.ID, soon
			case m.Turn.Due && f.Refresh == 0:
				f.Refresh = later
			}
		}
		p.Messages = append(p.Messages, x)
	}
	return s.showChat(w, r, p, f)
}

func (s *Site) showChat(w http.ResponseWriter, r *http.Request, p chatPage, f frame) error {
	p.Query = strings.TrimSpace(r.FormValue("q"))
	most := listMost
	if r.FormValue("all") != "" {
		most = 10_000
	}
	var err error
	if p.Chats, err = s.Chats.Chats(r.Context(), p.Query, most); err != nil {
		return err
	}
	p.More = p.Query == "" && len(p.Chats) == most
	f.Page = p
	return s.show(w, r, "chat", f)
}

// answers renders the answers among messages, as many at a time as there are processors.
func (s *Site) answers(all []chat.Message) [][]template.HTML {
	out := make([][]template.HTML, len(all))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				if all[i].Turn != nil {
					out[i] = s.answer(all[i])
				}
			}
		})
	}
	wg.Wait()
	return out
}

// answer renders what there is of an answer; finished ones are rendered once.
func (s *Site) answer(m chat.Message) []template.HTML {
	if m.Turn.State.Running() {
		return trusted(s.markdown.blocks(m.Text, nil))
	}
	return s.rendered.get(cacheKey{m.ID, m.Turn.Seq}, func() []block {
		return s.markdown.blocks(m.Text, s.linked(m.Turn.Citations))
	})
}

// linked returns the citations whose numbers are links: none where there is no vault to open.
func (s *Site) linked(c []llm.Citation) []llm.Citation {
	if s.Note == nil {
		return nil
	}
	return c
}

func (s *Site) send(w http.ResponseWriter, r *http.Request) error {
	var id int64
	if r.PathValue("id") != "" {
		var err error
		if id, err = number(r); err != nil {
			return err
		}
	}
	if err := r.ParseForm(); err != nil {
		return tooLarge(err)
	}
	parent, _ := strconv.ParseInt(r.FormValue("parent"), 10, 64)
	o := options(r)
	o.Key = r.FormValue("key")
	t, err := s.Chats.Send(r.Context(), id, parent, r.FormValue("text"), o)
	if err == nil && o.Plan != "" && s.Inquiries != nil && guard.Decides(r) { // how it was asked for is how the conversation goes on
		if err := s.Inquiries.Store.SetPlanFirst(r.Context(), t.Chat, o.Plan == llm.PlanAsk); err != nil {
			s.log.Warn("keep how a conversation wants plans", "chat", t.Chat, "error", err)
		}
	}
	return s.asked(w, r, t, err)
}

// tooled adds the switches of tools and memory to the composer's picker; jobs name their tools.
func (s *Site) tooled(p picker, tools, remembers bool) picker {
	p.HasTools, p.Tools = s.Tools != nil, tools
	p.HasMemory, p.Memory = s.Memory != nil && !s.Memory.Off, remembers
	return p
}

func tooLarge(err error) error {
	return problem{http.StatusRequestEntityTooLarge, "The question could not be read", "It may be too long (" + err.Error() + "). Nothing was sent."}
}

func options(r *http.Request) chat.Options {
	o := chat.Options{Model: r.FormValue("model"), Project: r.FormValue("project") != "", Tools: r.FormValue("tools") != "", Memory: r.FormValue("memory") != ""}
	if r.FormValue("plans") != "" && o.Model == graph.Name {
		if o.Plan = llm.PlanAuto; r.FormValue("plan") != "" {
			o.Plan = llm.PlanAsk
		}
	}
	return o
}

func (s *Site) edit(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	if err := r.ParseForm(); err != nil {
		return tooLarge(err)
	}
	t, err := s.Chats.Edit(r.Context(), id, r.FormValue("text"), options(r))
	return s.asked(w, r, t, err)
}

func (s *Site) regenerate(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	t, err := s.Chats.Turn(r.Context(), id)
	if err != nil {
		return err
	}
	o := chat.Options{Model: t.Asked, Project: t.Project, Tools: t.Tools, Memory: t.Memory}
	if r.FormValue("chosen") != "" { // the script sends what the composer has; the plain form asks as before
		o = options(r)
	}
	t, err = s.Chats.Regenerate(r.Context(), id, o)
	return s.asked(w, r, t, err)
}

func (s *Site) again(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	t, err := s.Chats.Again(r.Context(), id)
	return s.asked(w, r, t, err)
}

// asked answers a form that started a turn with the page that shows it.
func (s *Site) asked(w http.ResponseWriter, r *http.Request, t chat.Turn, err error) error {
	if err == nil {
		back(w, r, fmt.Sprintf("/chats/%d#m%d", t.Chat, t.ID))
	}
	return err
}

func (s *Site) stop(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	if err := s.Chats.Stop(r.Context(), id); err != nil {
		return err
	}
	t, err := s.Chats.Turn(r.Context(), id)
	if err == nil && s.Tools != nil && t.Tools {
		err = s.Tools.Withdraw(r.Context(), t.RunName())
	}
	if err == nil {
		err = s.withdraw(r.Context(), t.RunName())
	}
	return s.asked(w, r, t, err)
}

func (s *Site) selectBranch(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	c, err := s.Chats.Select(r.Context(), id)
	if err == nil {
		back(w, r, fmt.Sprintf("/chats/%d#m%d", c, id))
	}
	return err
}

func (s *Site) rename(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	if err := s.Chats.Rename(r.Context(), id, r.FormValue("title")); err != nil {
		return err
	}
	back(w, r, fmt.Sprintf("/chats/%d", id))
	return nil
}

func (s *Site) remove(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	if err := s.Chats.Delete(r.Context(), id); err != nil {
		return err
	}
	back(w, r, "/")
	return nil
}

// source is a message as it was written, for the copy button.
func (s *Site) source(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	m, err := s.Chats.Message(r.Context(), id)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte(m.Text)) //nolint:errcheck // the reader has left
	return nil
}

func (s *Site) exportMarkdown(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="chat-%d.md"`, id))
	return s.Chats.ExportMarkdown(r.Context(), w, id)
}

func (s *Site) exportJSON(w http.ResponseWriter, r *http.Request) error {
	id, err := number(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="chat-%d.json"`, id))
	return s.Chats.ExportJSON(r.Context(), w, id)
}

// number is the {id} of a path.
func number(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		return 0, chat.ErrNotFound
	}
	return id, nil
}
