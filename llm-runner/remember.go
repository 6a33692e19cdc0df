package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/memory"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// MemoryConfig is about what is remembered of the person.
type MemoryConfig struct {
	On           bool   `yaml:"on"`            // whether facts go along with questions in chats that ask for it; default true
	Model        string `yaml:"model"`         // reads conversations: a name as callers use it; "" the default of routes
	PrivateModel string `yaml:"private_model"` // reads private ones, on a machine of one's own; "" model where it is one, else the first such row
}

func (v *validator) memory() {
	m := v.c.Memory
	for key, name := range map[string]string{"memory.model": m.Model, "memory.private_model": m.PrivateModel} {
		if _, row := v.c.Routes.Models[name]; name != "" && !row && !strings.Contains(name, "/") {
			v.fault(key, "%q is no row of routes.models: name one, or provider/model, or leave it out", name)
		}
		if name == library.Model || name == graph.Name {
			v.fault(key, "%q is made of your notes and reads no conversations: name a model", name)
		}
	}
	if row, ok := v.c.Routes.Models[m.PrivateModel]; ok && v.c.Providers[row.Provider].cloud() {
		v.fault("memory.private_model", "%q is answered by %s, a cloud provider, which may not see what is private: name a model of a machine of your own", m.PrivateModel, row.Provider)
	}
}

// openMemory makes what remembers; it needs the library and the router.
func (a *app) openMemory() {
	a.said = chat.Reader(a.db)
	a.memory = memory.New(memory.Config{DB: a.db, Provider: a.router, Model: a.learner, Off: !a.config.Memory.On, Log: a.log,
		Conversations: func(ctx context.Context) ([]memory.Conversation, error) {
			all, err := a.said.Chats(ctx, "", allChats)
			out := make([]memory.Conversation, len(all))
			for i, c := range all {
				out[i] = memory.Conversation{ID: c.ID, Changed: c.Updated}
			}
			return out, err
		},
		Said: func(ctx context.Context, chat int64) ([]memory.Message, error) {
			all, err := a.said.Said(ctx, chat)
			return messagesOf(chat, all), err
		},
		There: a.said.There,
		Put: func(ctx context.Context, all ...memory.Entry) error {
			documents := make([]library.Document, len(all))
			for i, e := range all {
				documents[i] = library.Document{Path: e.Name, Text: []byte(e.Text), Time: e.Said}
			}
			return a.library.Put(ctx, library.Memory, documents...)
		},
		Erase: func(ctx context.Context, names ...string) error {
			return a.library.Erase(ctx, library.Memory, names...)
		},
		Search: a.alike,
		Blank: func(ctx context.Context, words ...string) error {
			return errors.Join(a.box.Blank(ctx, words...), a.inquiries.Store.Blank(ctx, words...))
		},
		Scrub: func(ctx context.Context) error {
			err := a.db.Scrub(ctx, "memory_facts", "memory_sources", "memory_changes", "memory_answers", "library_documents", "tool_calls", "tool_steps", "graph_steps", "graph_calls")
			if a.local != a.db {
				err = errors.Join(err, a.local.Scrub(ctx))
			}
			return err
		}})
}

// allChats is more than anybody has.
const allChats = 1 << 30

func messagesOf(chat int64, all []chat.Said) []memory.Message {
	out := make([]memory.Message, len(all))
	for i, m := range all {
		out[i] = memory.Message{ID: m.ID, Chat: chat, Text: m.Text, At: m.Created, Private: m.Private, Open: m.Open}
	}
	return out
}

// learner names the model that reads conversations.
func (a *app) learner(private bool) (string, error) {
	c := a.config.Memory
	if !private {
		if !a.answers(c.Model, false) {
			return "", errors.New("no model is connected that could read conversations: connect one, or name one in memory.model")
		}
		return c.Model, nil
	}
	names := append([]string{c.PrivateModel, c.Model}, slices.Sorted(maps.Keys(a.config.Routes.Models))...)
	if c.PrivateModel == "" {
		names = names[1:]
	}
	for _, name := range names {
		if a.answers(name, true) {
			return name, nil
		}
	}
	return "", memory.ErrNoModel
}

// answers says that a model, and not the notes, answers under a name; home that none of those that may is a cloud provider's.
func (a *app) answers(name string, home bool) bool {
	d := a.router.Decide(route.Ask{Model: name})
	return len(d.Targets) > 0 && !slices.ContainsFunc(d.Targets, func(t route.Target) bool {
		return t.Provider == library.Model || t.Provider == graph.Name || home && a.router.Outside(t)
	})
}

// likeEnough is the cosine from which a fact found by meaning alone belongs to a question; models of today put unrelated texts below it.
const likeEnough = 0.6

// alike finds facts by words and by meaning.
func (a *app) alike(ctx context.Context, query string, most int, private bool) ([]string, error) {
	result, err := a.library.Explain(ctx, library.Request{Query: query, Limit: most, Private: private, Filter: library.Filter{Collection: library.Memory}})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range library.Show(result).Found {
		if f.Why.Words.Rank > 0 || f.Why.Meaning.Score >= likeEnough {
			names = append(names, f.Path)
		}
	}
	return names, nil
}

// recall is what chats tell a model about the person. The notes quote, and are told nothing.
func (a *app) recall(ctx context.Context, req llm.Request) ([]chat.Remembered, error) {
	if len(req.Messages) == 0 || !a.answers(req.Model, false) {
		return nil, nil
	}
	private := slices.ContainsFunc(req.Messages, func(m llm.Message) bool {
		return slices.ContainsFunc(m.Parts, func(p llm.Part) bool { return p.Private })
	})
	facts, err := a.memory.Recall(ctx, req.Messages[len(req.Messages)-1].Text(), private)
	if err != nil {
		return nil, err
	}
	out := make([]chat.Remembered, len(facts))
	for i, f := range facts {
		out[i] = chat.Remembered{Fact: f.ID, Private: f.Private, Text: f.Text}
	}
	return out, nil
}

// deleted has facts go with their conversation.
func (a *app) deleted(int64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := a.memory.Conversation(ctx); err != nil {
		a.log.Warn("forget what rests on a deleted conversation", "error", err) // the next one that learns does
	}
}

// rememberTool has a model propose a fact, and a person decide.
func (a *app) rememberTool() toolbox.Tool {
	type arguments struct {
		Fact  string `json:"fact" jsonschema:"one short sentence about the person that begins with The user"`
		Quote string `json:"quote" jsonschema:"the person's own words in this conversation that say so, copied exactly"`
	}
	return toolbox.Make(toolbox.Tool{Name: "remember", Effects: true, Policy: toolbox.Ask,
		Description: "Keeps a lasting fact that the person has stated about themselves in this conversation, for later ones. Never secrets, and nothing that others said."},
		func(ctx context.Context, c toolbox.Call, in arguments) (toolbox.Result, error) {
			number, ok := strings.CutPrefix(c.Run, "turn-")
			turn, err := strconv.ParseInt(number, 10, 64)
			if !ok || err != nil || c.Chat == 0 {
				return toolbox.Result{}, errors.New("a fact needs the message that it comes from: this works in a conversation only")
			}
			said, err := a.said.Before(ctx, turn)
			if err != nil {
				return toolbox.Result{}, err
			}
			f, err := a.memory.Remember(ctx, in.Fact, in.Quote, c.Run, messagesOf(c.Chat, said))
			if err != nil {
				return toolbox.Result{}, err
			}
			return toolbox.Result{Text: "It is remembered as fact " + strconv.FormatInt(f.ID, 10) + ": " + f.Text}, nil
		})
}
