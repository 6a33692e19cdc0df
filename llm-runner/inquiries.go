package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

// newInquiries makes the provider of the models vault and research. What it asks models goes to the router, which main sets once it is made.
func (a *app) newInquiries(notes *library.Vault) *graph.Inquiries {
	st := graph.NewStore(a.db)
	st.Cost, st.Traces = a.config.Prices.Cost, a.traces
	st.Asked = func(ctx context.Context, tx *sql.Tx, r graph.RunRow) error {
		return a.alerts.RaiseIn(ctx, tx, alert.Incident{Key: planAlert, Provider: loop.Approval, Grace: 2 * time.Minute,
			Text: fmt.Sprintf("The plan of research waits for your word: start, change or cancel it at /runs/%d. What asked for it is held until then.", r.ID)})
	}
	c := a.config.Research
	return &graph.Inquiries{Store: st, Plain: notes, Notes: notes, Way: c.Way, Orders: a.library.Orders, Model: a.writer, Budget: c.budget(), Rewrites: bounded(c.Rewrites), Rounds: bounded(c.WebRounds), PlanFirst: c.Plan == llm.PlanAsk,
		Search: func(ctx context.Context, collection, query string, n int, private bool) ([]graph.Source, error) {
			hits, err := a.library.Find(ctx, library.Request{Query: query, Limit: n, Private: private, Filter: library.Filter{Collection: collection}})
			if err != nil {
				return nil, err
			}
			all := make([]graph.Source, len(hits))
			for i, h := range hits {
				all[i] = graph.Source{Citation: h.Citation, Title: h.Title, Score: h.Score, Private: a.library.NeverSent(h.Collection, h.Path)}
				if h.Collection == library.Notes {
					continue
				}
				all[i].Collection = h.Collection
				if all[i].Dated, err = a.library.Added(ctx, h.Collection, h.Path); err != nil {
					return nil, err
				}
			}
			return all, nil
		},
		Stands: func(ctx context.Context, s graph.Source) (llm.Citation, bool) {
			collection := s.Collection
			if collection == "" {
				collection = library.Notes
			}
			c, ok, err := a.library.Cite(ctx, collection, s.Citation)
			return c, ok && err == nil
		}}
}

// webPages is how many pages of a search are read.
const webPages = 4

// outside has research look on the web, where a search engine is configured: pages are kept in the library, and quoted from there. It does
// so only while the policies of both tools, as the conversation that asks has them, let them run without being asked about.
func (a *app) outside(searcher *browse.Searcher, fetcher *browse.Fetcher) func(context.Context, int64, string) ([]graph.Source, []graph.Drop, error) {
	if searcher.Missing() != "" {
		return nil
	}
	return func(ctx context.Context, chat int64, query string) (all []graph.Source, dropped []graph.Drop, err error) {
		scope := toolbox.Scope{Source: "research", Chat: chat}
		policies, err := a.box.Entries(ctx, chat)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range policies { // what cannot be read need not be searched for
			if e.Name == "fetch_url" && e.Policy != toolbox.Allow {
				return nil, nil, errors.New("fetch_url may not be used without asking; allow it on the Tools page")
			}
		}
		var found []browse.Hit
		err = a.box.Do(ctx, scope, "web_search", map[string]string{"query": query}, func(ctx context.Context) (toolbox.Result, error) {
			found, err = searcher.Search(ctx, query, "", "", 2*webPages)
			return browse.Shown(found), err
		})
		if err != nil {
			return nil, nil, err
		}
		read, published := 0, map[string]time.Time{}
		for _, hit := range found { // a page that cannot be read is made up for by the next one
			if read == webPages {
				break
			}
			var page browse.Page
			err := a.box.Do(ctx, scope, "fetch_url", map[string]string{"url": hit.URL}, func(ctx context.Context) (toolbox.Result, error) {
				page, err = fetcher.Fetch(ctx, hit.URL)
				return toolbox.Result{Text: page.Head()}, err
			})
			if err != nil {
				a.log.Debug("read a page for research", "url", hit.URL, "error", err)
				dropped = append(dropped, graph.Drop{Path: hit.URL, Why: "it could not be read: " + err.Error()})
				continue
			}
			if published[page.URL] = page.Published; page.Published.IsZero() {
				published[page.URL] = hit.Published
			}
			read++
		}
		if err := a.library.Settle(ctx); err != nil { // what was read a moment ago is what is looked for
			return nil, dropped, err
		}
		all, err = a.inquiries.Search(ctx, library.Web, query, 12, false)
		for i := range all {
			all[i].Published = published[all[i].Path]
		}
		return all, dropped, err
	}
}

// planAlert is the alert that a plan waits for a person.
const planAlert = "plan"

// report is the note of a research job.
func (a *app) report(ctx context.Context, key string) (front, body string, ok bool, err error) {
	run, err := a.inquiries.Store.Keyed(ctx, key)
	if errors.Is(err, graph.ErrNotFound) || err == nil && run.Graph != graph.Name {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, err
	}
	r, err := a.inquiries.Report(ctx, run.ID)
	if errors.Is(err, graph.ErrNoReport) {
		return "", "", false, nil
	}
	return r.Front, r.Body, err == nil, err
}

// saveReport writes the report of a run into the vault and returns where.
func (a *app) saveReport(ctx context.Context, id int64) (string, error) {
	r, err := a.inquiries.Report(ctx, id)
	if err != nil {
		return "", err
	}
	p := fmt.Sprintf("%s/%s-%s.md", a.config.Research.Folder, r.Ended.Local().Format("20060102-150405"), jobs.FileName(r.Title))
	return p, a.writeNote(p, string(r.Note()))
}

// planned has who waits for the decision about a run go on, and ends the alert when no run waits any more.
func (a *app) planned(queue *jobs.Service, chats *chat.Service) func(graph.RunRow) {
	return func(r graph.RunRow) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var err error
		switch {
		case r.Key == "":
			a.proceed <- r.ID
		case strings.HasPrefix(r.Key, "job-"):
			err = queue.Back(ctx, loop.Approval)
		default:
			err = chats.Decided(ctx, r.Key)
		}
		if err != nil {
			a.log.Warn("wake what waits for a plan", "run", r.ID, "error", err) // it looks for itself before long
		}
		if waits, err := a.inquiries.Store.Waits(ctx); err == nil && len(waits) == 0 {
			a.alerts.End(planAlert, "No plan waits for your word any more")
		}
	}
}

// direct answers research and vault without the loop of tools, which they do not use, and everything else with it: so a run keeps its name.
type direct struct{ research, other llm.Provider }

func (d direct) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	if req.Model == graph.Name || req.Model == library.Model {
		req.Use = nil
		return d.research.Stream(ctx, req)
	}
	return d.other.Stream(ctx, req)
}

// wanted says whether the work still goes on that a run is part of.
func wanted(queue *jobs.Service, chats *chat.Service) func(ctx context.Context, key string) (bool, error) {
	return func(ctx context.Context, key string) (bool, error) {
		var id int64
		var step int
		if n, _ := fmt.Sscanf(key, "job-%d-%d", &id, &step); n == 2 {
			j, err := queue.Job(ctx, id)
			if errors.Is(err, jobs.ErrNotFound) {
				return false, nil
			}
			return err == nil && !j.State.Ended(), err
		}
		if strings.HasPrefix(key, "turn-") { // whichever of its turns goes on with it
			return chats.Goes(ctx, key)
		}
		return true, nil // a run of its own
	}
}

// withdraw ends the runs whose work has ended: a job past its deadline, a conversation that was deleted, an answer that was stopped, a program that
// asked once and is gone. It returns the forks that are to go on.
func (a *app) withdraw(ctx context.Context, wanted func(context.Context, string) (bool, error)) (left []int64, err error) {
	open, err := a.inquiries.Store.Open(ctx)
	if err != nil {
		return nil, err
	}
	waits := 0
	for _, r := range open {
		still, why := true, "nobody wants it any more: what it is part of has ended"
		switch {
		case r.Key != "":
			if still, err = wanted(ctx, r.Key); err != nil {
				return left, err
			}
		case r.Status == graph.Paused:
		case r.ForkedFrom > 0:
			left = append(left, r.ID)
		default:
			still, why = false, "the program ended while it ran, and who asked is gone: fork it to go on"
		}
		if !still {
			if err := a.inquiries.Store.Leave(ctx, r, why); err != nil {
				return left, err
			}
		} else if r.Status == graph.Paused {
			waits++
		}
	}
	if waits == 0 {
		a.alerts.End(planAlert, "No plan waits for your word any more")
	}
	return left, nil
}

// goOn goes on with runs that were forked or decided about, also those that an earlier process left or whose machine was busy, and deletes old ones,
// until ctx ends.
func (a *app) goOn(ctx context.Context, wanted func(context.Context, string) (bool, error)) error {
	var group sync.WaitGroup
	defer group.Wait()
	clean := time.NewTicker(time.Hour)
	defer clean.Stop()
	var held sync.Map // of forks: until when
	proceed := func(id int64) {
		group.Go(func() {
			err := a.inquiries.Go(ctx, id)
			var busy *llm.BusyError
			if errors.As(err, &busy) {
				held.Store(id, busy.Until)
			} else {
				held.Delete(id)
			}
			if err != nil && ctx.Err() == nil {
				a.log.Warn("go on with a run", "run", id, "error", err)
			}
		})
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			left, err := a.withdraw(ctx, wanted)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("look at runs that wait", "error", err)
			}
			for _, id := range left {
				if until, _ := held.Load(id); until == nil || !until.(time.Time).After(time.Now()) {
					proceed(id)
				}
			}
			look.Reset(time.Minute)
		case id := <-a.proceed:
			proceed(id)
		case <-clean.C:
			if err := a.cleanRuns(ctx, time.Now()); err != nil && ctx.Err() == nil {
				a.log.Warn("delete old runs", "error", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cleanRuns deletes the runs that are older than they are kept: those of the straight way apart, of which there are many. 0 keeps for ever.
func (a *app) cleanRuns(ctx context.Context, now time.Time) (err error) {
	if keep := a.config.Jobs.Keep; keep > 0 {
		err = a.inquiries.Store.Clean(ctx, now.Add(-keep))
	}
	if keep := a.config.Research.Keep; keep > 0 {
		err = errors.Join(err, a.inquiries.Store.CleanStraight(ctx, now.Add(-keep)))
	}
	return err
}
