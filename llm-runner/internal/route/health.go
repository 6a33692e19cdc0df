package route

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
)

// A Status says what is known of a provider.
type Status string

const (
	Up      Status = "up"
	Down    Status = "down"
	Unknown Status = "unknown" // nothing has been heard yet
)

// Health is a provider's state, since when, and what was wrong last.
type Health struct {
	Status Status    `json:"status"`
	Since  time.Time `json:"since"`
	Error  string    `json:"error,omitempty"`
}

const (
	probeEvery   = 2 * time.Second  // a change is seen within probeEvery + probeTimeout < 5 s
	probeTimeout = 2 * time.Second  // a machine that takes longer to say "here" is not fit to answer
	listEvery    = time.Minute      // models come and go on a local machine
	listTimeout  = 10 * time.Second // for a cloud's list of models
	relistAfter  = time.Hour        // a cloud's list changes rarely
)

// member is a Member at run time.
type member struct {
	Member
	line    *line // nil: there is room for any number
	active  atomic.Int64
	changed chan struct{} // capacity 1: something was heard that a probe should confirm

	mu      sync.Mutex
	state   Health
	models  []llm.ModelInfo
	judged  bool              // it has taken or refused a request since the start
	refuses bool              // for its key or for money
	refused string            // the model of the request that it refused; "" the list of models
	scouts  map[string]*scout // by model; of cloud APIs
}

// judged takes what a provider thinks of our key and our money: e is its refusal, of any kind, nil that it took a request for
// model ("" its list of models).
func (r *Router) judged(m *member, model string, e *llm.Error) {
	if e != nil && e.Kind != llm.Auth && e.Kind != llm.Spend {
		return
	}
	m.mu.Lock()
	news := e == nil && (!m.judged && model != "" || m.refuses && m.refused == model) || e != nil && !m.refuses
	if news {
		m.judged, m.refuses, m.refused = true, e != nil, model
	}
	m.mu.Unlock()
	if news && r.refused != nil {
		r.refused(m.Name, e)
	}
}

// maxScouts bounds what is remembered of models: callers may make names up.
const maxScouts = 1024

// scout returns the scout of a model; nil where there is no need of one.
func (m *member) scout(model string) *scout {
	if !m.Cloud {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.scouts[model]
	if s == nil {
		if m.scouts == nil || len(m.scouts) >= maxScouts {
			m.scouts = map[string]*scout{}
		}
		s = &scout{}
		m.scouts[model] = s
	}
	return s
}

func (m *member) enter(ctx context.Context, model string, patient bool) error {
	if m.line != nil {
		if err := m.line.enter(ctx, model, patient); err != nil {
			return err
		}
	}
	m.active.Add(1)
	return nil
}

func (m *member) leave() {
	m.active.Add(-1)
	if m.line != nil {
		m.line.leave()
	}
}

// waiting is how many stand in line.
func (m *member) waiting() int {
	if m.line == nil {
		return 0
	}
	return m.line.length()
}

func (m *member) health() Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Status == "" {
		return Health{Status: Unknown}
	}
	return m.state
}

// heard takes the outcome of a call to the provider: nil means that it answered.
func (m *member) heard(err error) {
	if err != nil && m.Probe != nil {
		select { // the probe decides, at once
		case m.changed <- struct{}{}:
		default:
		}
		return
	}
	m.set(err)
}

// set changes the state and returns the one before, when it differs in status.
func (m *member) set(err error) (before Health, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.state
	now := Health{Status: Up, Since: m.state.Since}
	if err != nil {
		now.Status, now.Error = Down, short(err)
	}
	if now.Status != before.Status {
		now.Since = time.Now()
	}
	m.state = now
	return before, now.Status != before.Status
}

func short(err error) string {
	var e *llm.Error
	if errors.As(err, &e) && e.Message != "" {
		return e.Message
	}
	return err.Error()
}

// Run watches health and lists models until ctx ends. The first probes go out at once, all together.
func (r *Router) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, m := range r.order {
		wg.Go(func() { r.watch(ctx, m) })
	}
	wg.Wait()
	return nil
}

// Survey asks every provider once, all together, and returns when all have answered or ctx has ended: for a command that
// decides once and does not stay to watch.
func (r *Router) Survey(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range r.order {
		wg.Go(func() {
			if (m.Probe == nil || r.probe(ctx, m)) && m.Found {
				r.list(ctx, m)
			}
		})
	}
	wg.Wait()
}

func (r *Router) watch(ctx context.Context, m *member) {
	var listed time.Time
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		up := true
		if m.Probe != nil {
			up = r.probe(ctx, m)
		}
		every := listEvery
		if m.Cloud {
			every = relistAfter
		}
		if !up {
			listed = time.Time{} // when it comes back, look at once
		} else if time.Since(listed) > every && r.list(ctx, m) {
			listed = time.Now()
		}
		next := tick.C
		if m.Probe == nil && !listed.IsZero() {
			tick.Reset(every)
		}
		select {
		case <-next:
		case <-m.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Router) probe(ctx context.Context, m *member) bool {
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := m.Probe(probing)
	if ctx.Err() != nil {
		return false
	}
	before, changed := m.set(err)
	if changed {
		now := m.health()
		if !m.Found || now.Status == Up || before.Status == Up {
			r.log.Info("provider "+string(now.Status), "provider", m.Name, "error", now.Error)
		}
		if m.Found {
			r.rebuild()
		}
		if r.notify != nil && !m.Found {
			r.notify(Change{Provider: m.Name, Up: err == nil, Reason: now.Error, Since: before.Since})
		}
	}
	return err == nil
}

// list asks for the provider's models and says whether it got them.
func (r *Router) list(ctx context.Context, m *member) bool {
	lister, ok := m.Provider.(llm.Lister)
	if !ok {
		return true
	}
	listing, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	models, err := lister.Models(listing)
	if ctx.Err() != nil {
		return false
	}
	if m.Probe == nil {
		m.set(err)
	}
	var refusal *llm.Error
	if errors.As(err, &refusal) && refusal.Status != 0 || err == nil { // a key that is not there at all was told of at the start
		r.judged(m, "", refusal)
	}
	if err != nil {
		r.log.Warn("list models", "provider", m.Name, "error", err)
		return llm.KindOf(err).Permanent() // a wrong key does not become right by asking again
	}
	m.mu.Lock()
	same := slices.Equal(m.models, models)
	m.models = models
	m.mu.Unlock()
	if !same && m.Found {
		r.rebuild()
	}
	return true
}

// rebuild puts the table in force: what is configured, and the models of providers that were found and answer.
func (r *Router) rebuild() {
	r.rebuilding.Lock()
	defer r.rebuilding.Unlock()
	t := r.base
	t.Models = make(map[string]Entry, len(r.base.Models))
	for name, e := range r.base.Models {
		t.Models[name] = e
	}
	for _, m := range r.order { // in the order of configuration: the first to offer a name has it
		if !m.Found || m.hidden() {
			continue
		}
		models := m.offers()
		for _, info := range models {
			if _, taken := t.Models[info.Name]; !taken {
				t.Models[info.Name] = Entry{Target: Target{m.Name, info.Name}}
			}
		}
		if r.auto && t.Default == (Target{}) {
			t.Default = Target{m.Name, best(models, m.Prefer)}
			if t.Default.Model == "" {
				t.Default = Target{}
			}
		}
	}
	if t.Default == (Target{}) {
		t.Default = r.other
	}
	r.table.Store(&t)
}

// hidden says that the member is a machine that was looked for and does not answer: as good as not there.
func (m *member) hidden() bool {
	return m.Found && !m.Cloud && m.health().Status != Up
}

// offers returns the models that the member is known to have; for a cloud API that could not be asked yet, the preferred
// ones.
func (m *member) offers() []llm.ModelInfo {
	m.mu.Lock()
	models := m.models
	m.mu.Unlock()
	if models == nil && m.Found && m.Cloud {
		for _, name := range m.Prefer {
			models = append(models, llm.ModelInfo{Name: name})
		}
	}
	return models
}

// best returns the first preferred model that is offered, else the first that chats, else "".
func best(models []llm.ModelInfo, prefer []string) string {
	for _, want := range prefer {
		if slices.ContainsFunc(models, func(m llm.ModelInfo) bool { return m.Name == want }) {
			return want
		}
	}
	for _, m := range models {
		if !m.Embeds {
			return m.Name
		}
	}
	return ""
}

// A Report is what is known of one provider, without asking it.
type Report struct {
	Name    string
	Kind    string
	Cloud   bool
	Found   bool
	Health  Health
	Active  int // requests under way
	Waiting int // requests in line
	Places  int // requests that it has at once at most; 0 is unlimited
	Models  []llm.ModelInfo
	Quota   []quota.Standing
}

// Reports returns what is known of every provider, in the order of configuration; machines that nobody configured only
// while they answer.
func (r *Router) Reports() []Report {
	var all []Report
	for _, m := range r.order {
		if m.hidden() {
			continue
		}
		all = append(all, Report{m.Name, m.Kind, m.Cloud, m.Found, m.health(), int(m.active.Load()), m.waiting(), m.Concurrency,
			m.offers(), r.book.Standings(m.Name, time.Now())})
	}
	return all
}
