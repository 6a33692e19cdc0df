package quota

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Where several processes share a database, the limits of a provider are read before each use and written after it, in a
// transaction that locks them: two processes never take the same room. The database's clock is everybody's. While the
// database does not answer, each process goes by what it knew last: answering goes on, and the providers' headers correct
// what was counted apart.
type common struct {
	db   *db.DB
	off  int64     // the database's clock, less this process's steady time
	down time.Time // the database did not answer; it is asked again then
}

const (
	askFor   = 3 * time.Second // how long a database that does not answer is waited for
	askAgain = time.Second     // and how soon it is asked again

	// underWay bounds how long requests are believed to be under way of a process that has not settled or begun any since: it
	// may have been killed where nobody looks after the dead, like a command that asks one question.
	underWay = int64(time.Hour)
)

// with calls f with the limits of a provider held, and the time by the clock that they count with.
func (b *Book) with(provider string, now time.Time, f func(t int64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.common == nil {
		f(b.time(now))
		return
	}
	called := false
	if !time.Now().Before(b.common.down) {
		ctx, cancel := context.WithTimeout(context.Background(), askFor)
		defer cancel()
		err := b.common.db.Tx(ctx, func(tx *sql.Tx) error {
			if err := b.read(ctx, tx, provider, now); err != nil {
				return err
			}
			called = true
			t := b.time(now)
			f(t)
			return b.write(ctx, tx, provider, t)
		})
		if err == nil {
			b.wrote(provider)
			return
		}
		b.common.down, b.news = time.Now().Add(askAgain), nil
	}
	if !called {
		f(b.time(now))
	}
}

// time is the time that limits count with: steady, or the database's.
func (b *Book) time(now time.Time) int64 {
	t := b.steady(now)
	if b.common != nil {
		t += b.common.off
	}
	return t
}

// read locks the limits of a provider and takes them as they are in the database.
func (b *Book) read(ctx context.Context, tx *sql.Tx, provider string, now time.Time) error {
	if err := b.common.db.LockName(ctx, tx, "quota "+provider); err != nil {
		return err
	}
	clock, err := databaseClock(ctx, tx)
	if err != nil {
		return err
	}
	all, err := loadShared(ctx, tx, provider, b.common.db.Worker(), clock-underWay)
	if err != nil {
		return err
	}
	b.common.off = clock - b.steady(now)
	b.take(all, clock)
	return nil
}

// take puts buckets as they are in the database in the place of those in memory. What was counted while the database did not
// answer is not forgotten.
func (b *Book) take(all []*bucket, t int64) {
	for _, fresh := range all {
		x := b.bucket(fresh.provider, fresh.model, fresh.dimension)
		was := *x
		x.refill, x.counts, x.most, x.known, x.used, x.uses = fresh.refill, fresh.counts, fresh.most, fresh.known, fresh.used, fresh.uses
		x.at, x.reset, x.closed, x.seen, x.others = fresh.at, fresh.reset, fresh.closed, fresh.seen, fresh.others
		x.configured = fresh.configured
		if was.dirty {
			x.refresh(t)
			x.closed = max(x.closed, was.closed)
			if was.used > x.used {
				x.set(t, was.used)
				x.reset = max(x.reset, was.reset)
			}
		}
	}
}

// write writes what changed of a provider's limits, and tells the others what they only hear.
func (b *Book) write(ctx context.Context, tx *sql.Tx, provider string, t int64) error {
	for _, x := range b.accounts[provider] {
		if x.dirty {
			if err := saveBucket(ctx, tx, x); err != nil {
				return err
			}
		}
		if x.told != x.pending+x.owed {
			if err := saveReserved(ctx, tx, x, b.common.db.Worker(), t); err != nil {
				return err
			}
		}
	}
	for _, n := range b.news {
		text, err := json.Marshal(n)
		if err != nil {
			return err
		}
		if err := b.common.db.Tell(ctx, tx, topic, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// wrote notes that what write wrote is committed.
func (b *Book) wrote(provider string) {
	for _, x := range b.accounts[provider] {
		x.dirty, x.told = false, x.pending+x.owed
	}
	b.news = nil
}

// topic is what processes tell each other about refusals that named no limit.
const topic = "quota"

// news is a refusal, or that one is over (Until 0).
type news struct {
	Provider string   `json:"provider"`
	Model    string   `json:"model"`
	Until    int64    `json:"until"` // by the database's clock
	Count    int      `json:"count"`
	Kind     llm.Kind `json:"kind"`
	Text     string   `json:"text"`
}

// tell has the other processes know of a refusal with the next write.
func (b *Book) tell(k target) {
	if b.common == nil {
		return
	}
	n := news{Provider: k.provider, Model: k.model}
	if r, ok := b.refusals[k]; ok {
		n.Until, n.Count, n.Kind, n.Text = r.until, r.count, r.kind, r.text
		if len(n.Text) > 500 {
			n.Text = n.Text[:500]
		}
	}
	b.news = append(b.news, n)
}

// hear takes what another process was refused.
func (b *Book) hear(text string) {
	var n news
	if json.Unmarshal([]byte(text), &n) != nil {
		return // something may have been missed; the next refusal is told again
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := target{n.Provider, n.Model}
	if n.Until == 0 {
		delete(b.refusals, k)
		return
	}
	now := time.Now()
	if b.refusals == nil {
		b.refusals = map[target]refusal{}
	}
	if r := b.refusals[k]; n.Until >= r.until {
		b.refusals[k] = refusal{until: n.Until, count: n.Count, kind: n.Kind, text: n.Text, told: now.Add(time.Duration(n.Until - b.time(now))).UTC()}
	}
}

// refresh takes the limits of all providers as they are in the database, and writes what could not be written before.
func (b *Book) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	now := time.Now()
	b.mu.Lock()
	t := b.time(now)
	b.mu.Unlock()
	all, err := loadShared(ctx, b.common.db.Read(), "", b.common.db.Worker(), t-underWay)
	if err != nil {
		return // a second later again
	}
	b.mu.Lock()
	var left []string
	for provider, buckets := range b.accounts {
		if slices.ContainsFunc(buckets, func(x *bucket) bool { return x.dirty || x.told != x.pending+x.owed }) {
			left = append(left, provider)
		}
	}
	b.take(slices.DeleteFunc(all, func(x *bucket) bool { return slices.Contains(left, x.provider) }), t)
	b.mu.Unlock()
	for _, provider := range left {
		b.with(provider, now, func(int64) {})
	}
}

// Adopt forgets what another process had reserved, and its places; it is dead. What it sent was counted by those who were asked.
func (b *Book) Adopt(ctx context.Context, worker string) error {
	if err := forgetPlaces(ctx, b.common.db, worker); err != nil {
		return err
	}
	return b.forget(ctx, worker)
}

// forget forgets what a process had reserved.
func (b *Book) forget(ctx context.Context, worker string) error {
	b.mu.Lock()
	t := b.time(time.Now())
	b.mu.Unlock()
	return forgetReserved(ctx, b.common.db, worker, t-underWay)
}
