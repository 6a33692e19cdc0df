package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// toolRoutes are the page of the tools, its forms, and their JSON.
func (s *Site) toolRoutes(page func(string, func(http.ResponseWriter, *http.Request) error)) {
	page("GET /tools", s.toolsPage)
	page("POST /tools/policy", s.setPolicy)
	page("POST /tools/calls/{id}/approve", s.decide(true))
	page("POST /tools/calls/{id}/deny", s.decide(false))
	page("GET /api/tools", s.apiTools)
	page("GET /api/tools/calls", s.apiCalls)
	page("POST /api/tools/calls/{id}/approve", s.apiDecide(true))
	page("POST /api/tools/calls/{id}/deny", s.apiDecide(false))
	if s.Login != nil {
		page("GET /tools/login/{server}", s.login)
	}
}

// logLength is how many calls the page shows at once.
const logLength = 50

type toolsPage struct {
	Chat    *chat.Chat // whose policies are shown; nil: those for everywhere
	Waits   []shownCall
	Tools   []toolbox.Entry
	Servers []toolbox.Server
	Log     []shownCall
	Tool    string // the log is of this one; "" all
	Older   int64  // the log goes on before this call; 0 it does not
}

// shownCall is a call as pages show it.
type shownCall struct {
	toolbox.Call
	Back string // where a decision leads back to
}

// Summary is what the call is about, in a few words.
func (c shownCall) Summary() string {
	var object map[string]any
	if json.Unmarshal(c.Arguments, &object) != nil {
		return ""
	}
	for _, key := range []string{"query", "url", "path", "text", "code"} {
		if v, ok := object[key].(string); ok && v != "" {
			v = strings.Join(strings.Fields(v), " ")
			if r := []rune(v); len(r) > 90 {
				v = string(r[:90]) + "\u2026"
			}
			return v
		}
	}
	if len(object) == 0 {
		return ""
	}
	return string(c.Arguments[:min(len(c.Arguments), 90)])
}

// shownLine is a line of what a person is to decide about, with its end.
type shownLine struct {
	Sign string // add, cut: of a difference; ""
	Text string
}

// Lines is what a person is to decide about: the preview, or the arguments.
func (c shownCall) Lines() []shownLine {
	var lines []shownLine
	if c.Preview != "" {
		begun := false // the changes, behind the names of both sides
		for text := range strings.Lines(c.Preview) {
			l := shownLine{Text: text}
			switch {
			case strings.HasPrefix(text, "@@ "):
				begun = true
			case begun && text[0] == '+':
				l.Sign = "add"
			case begun && text[0] == '-':
				l.Sign = "cut"
			}
			lines = append(lines, l)
		}
		return lines
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(c.Arguments, &object) != nil {
		return []shownLine{{Text: toolbox.Visible(string(c.Arguments))}}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		lines = append(lines, shownLine{Text: toolbox.Visible(fmt.Sprintf("%s: %s\n", key, object[key]))})
	}
	return lines
}

// Dot and Word say how the call stands.
func (c shownCall) Dot() string {
	switch {
	case c.State == toolbox.Running || c.State == toolbox.Approved || c.State == toolbox.Cut:
		return "busy pulse"
	case c.State == toolbox.Waiting || c.State == toolbox.Unverified:
		return "busy"
	case c.State == toolbox.Done && !c.IsError:
		return "up"
	case c.State == toolbox.Done:
		return "down"
	}
	return "off"
}

func (c shownCall) Word() string {
	switch {
	case c.State == toolbox.Waiting:
		return "waits for your word"
	case c.State == toolbox.Approved, c.State == toolbox.Cut:
		return "about to run"
	case c.State == toolbox.Unverified:
		return "effect unverified: the program ended while it ran"
	case c.State == toolbox.Done && c.IsError:
		return "failed"
	}
	return string(c.State)
}

func (s *Site) toolsPage(w http.ResponseWriter, r *http.Request) error {
	p := toolsPage{Tool: r.FormValue("tool")}
	id, _ := strconv.ParseInt(r.FormValue("chat"), 10, 64)
	if id != 0 {
		c, err := s.Chats.Chat(r.Context(), id)
		if err != nil {
			return err
		}
		p.Chat = &c
	}
	var err error
	if p.Tools, err = s.Tools.Entries(r.Context(), id); err != nil {
		return err
	}
	waits, err := s.Tools.Waits(r.Context())
	if err != nil {
		return err
	}
	for _, c := range waits {
		p.Waits = append(p.Waits, shownCall{c, "/tools"})
	}
	before, _ := strconv.ParseInt(r.FormValue("before"), 10, 64)
	log, err := s.Tools.Log(r.Context(), p.Tool, before, logLength+1)
	if err != nil {
		return err
	}
	for i, c := range log {
		if i == logLength {
			p.Older = log[i-1].ID
			break
		}
		p.Log = append(p.Log, shownCall{c, ""})
	}
	if s.Servers != nil {
		p.Servers = s.Servers()
	}
	return s.show(w, r, "tools", frame{Title: "Tools", Nav: "tools", Refresh: reload(len(waits) > 0), Page: p})
}

// forPeople is what a program is told that would decide for a person.
var forPeople = problem{http.StatusForbidden, "A program cannot decide that", "Log in and decide on the page, or name its token in auth.decide."}

func (s *Site) setPolicy(w http.ResponseWriter, r *http.Request) error {
	if !guard.Decides(r) {
		return forPeople
	}
	id, _ := strconv.ParseInt(r.FormValue("chat"), 10, 64)
	err := s.Tools.SetPolicy(r.Context(), r.FormValue("tool"), id, toolbox.Policy(r.FormValue("policy")))
	if errors.Is(err, toolbox.ErrPolicy) || errors.Is(err, toolbox.ErrNoTool) {
		return problem{http.StatusUnprocessableEntity, "That policy cannot be set", upper(err.Error()) + "."}
	}
	if err == nil {
		to := "/tools"
		if id != 0 {
			to += "?chat=" + strconv.FormatInt(id, 10)
		}
		back(w, r, to)
	}
	return err
}

func (s *Site) decision(r *http.Request, approve bool) (toolbox.Call, error) {
	if !guard.Decides(r) {
		return toolbox.Call{}, forPeople
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return toolbox.Call{}, problem{http.StatusNotFound, "There is no such call", "The log on the Tools page has all that there are."}
	}
	c, err := s.Tools.Decide(r.Context(), id, approve)
	switch {
	case errors.Is(err, toolbox.ErrNotFound):
		err = problem{http.StatusNotFound, "There is no such call", "The log on the Tools page has all that there are."}
	case errors.Is(err, toolbox.ErrDecided):
		err = problem{http.StatusConflict, "That was decided before", "The call is " + string(c.State) + "."}
	}
	return c, err
}

// decide answers the forms under a call that waits.
func (s *Site) decide(approve bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := s.decision(r, approve); err != nil {
			return err
		}
		to := r.FormValue("back")
		if to == "" {
			to = "/tools"
		}
		back(w, r, local(to))
		return nil
	}
}

func (s *Site) apiDecide(approve bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.decision(r, approve)
		var told problem
		if errors.As(err, &told) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(told.Status)
			return json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"message": told.What + ". " + told.Says}})
		}
		if err != nil {
			return err
		}
		return writeJSON(w, c)
	}
}

// apiTools lists the tools with their policies, and the MCP servers.
func (s *Site) apiTools(w http.ResponseWriter, r *http.Request) error {
	id, _ := strconv.ParseInt(r.FormValue("chat"), 10, 64)
	all, err := s.Tools.Entries(r.Context(), id)
	if err != nil {
		return err
	}
	type entry struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"schema"`
		Effects     bool            `json:"effects"`
		Policy      toolbox.Policy  `json:"policy"`
		Server      string          `json:"server,omitempty"`
		Missing     string          `json:"missing,omitempty"`
	}
	out := struct {
		Tools   []entry          `json:"tools"`
		Servers []toolbox.Server `json:"servers"`
	}{[]entry{}, []toolbox.Server{}}
	for _, e := range all {
		out.Tools = append(out.Tools, entry{e.Name, e.Description, e.Schema, e.Effects, e.Policy, e.Server, e.Missing})
	}
	if s.Servers != nil {
		out.Servers = append(out.Servers, s.Servers()...)
	}
	return writeJSON(w, out)
}

// apiCalls is the log, newest first: ?tool=, ?before= a call's number, ?waiting=1 those that wait for a person.
func (s *Site) apiCalls(w http.ResponseWriter, r *http.Request) error {
	before, _ := strconv.ParseInt(r.FormValue("before"), 10, 64)
	all, err := s.Tools.Log(r.Context(), r.FormValue("tool"), before, 200)
	if yes(r.FormValue("waiting")) {
		all, err = s.Tools.Waits(r.Context())
	}
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}

// calls are the tools that an answer has had run.
func (s *Site) calls(t *chat.Turn) []shownCall {
	if s.Tools == nil || !t.Tools {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all, err := s.Tools.OfRun(ctx, t.RunName())
	if err != nil {
		s.log.Warn("read tools of an answer", "turn", t.ID, "error", err)
		return nil
	}
	out := make([]shownCall, len(all))
	for i, c := range all {
		out[i] = shownCall{c, fmt.Sprintf("/chats/%d#m%d", t.Chat, t.ID)}
	}
	return out
}

// Asks says that the answer waits for a person.
func (l line) Asks() bool {
	return l.Plan != nil || slices.ContainsFunc(l.Calls, func(c shownCall) bool { return c.State == toolbox.Waiting })
}

// login sends a person to where they let this program use an MCP server, and takes them when they come back.
func (s *Site) login(w http.ResponseWriter, r *http.Request) error {
	to, err := s.Login(r.Context(), r.PathValue("server"), r.URL.Query())
	if err != nil {
		return problem{http.StatusBadGateway, "Logging in did not work", upper(err.Error()) + "."}
	}
	if to == "" {
		back(w, r, "/tools")
		return nil
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}
