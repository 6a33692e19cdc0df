package db

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is what our processes say to each other on (postgresql.org/docs/current/sql-notify.html).
const channel = "llm_runner"

// A bus is who wants to hear what other processes tell.
type bus struct {
	mu      sync.Mutex
	hearers map[string][]func(text string)
}

// Tell has all processes on a shared database hear a text of at most some thousand bytes under a topic, once tx is committed.
// In SQLite there is nobody to tell.
func (d *DB) Tell(ctx context.Context, tx *sql.Tx, topic, text string) error {
	if d.shared == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_notify(?, ?)`, channel, topic+" "+text); err != nil {
		return fmt.Errorf("tell %s: %w", topic, err)
	}
	return nil
}

// Hear has f called with what is told under a topic, also by this process, while Listen runs; with "" after anything may have
// been missed. f must be quick.
func (d *DB) Hear(topic string, f func(text string)) {
	if d.shared == nil {
		return
	}
	b := &d.shared.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hearers == nil {
		b.hearers = map[string][]func(string){}
	}
	b.hearers[topic] = append(b.hearers[topic], f)
}

// Listen hears what other processes tell until ctx ends; a connection that breaks is made again, and Away says that it cannot be. In
// SQLite it only waits.
func (d *DB) Listen(ctx context.Context) error {
	for d.shared != nil && ctx.Err() == nil {
		d.listen(ctx) //nolint:errcheck // whoever writes or reads meets the same error, and says it
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
	<-ctx.Done()
	return nil
}

// silence is how long a connection may be silent before it is asked whether it is still there.
const silence = 30 * time.Second

func (d *DB) listen(ctx context.Context) error {
	c, err := pgx.ConnectConfig(ctx, d.shared.config)
	if err != nil {
		if ctx.Err() == nil {
			d.missed(err)
		}
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is given up
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	d.heard()
	d.shared.bus.say("", "")
	for {
		wait, cancel := context.WithTimeout(ctx, silence)
		n, err := c.WaitForNotification(wait)
		cancel()
		switch {
		case err == nil:
			topic, text, _ := strings.Cut(n.Payload, " ")
			d.shared.bus.say(topic, text)
		case ctx.Err() != nil || wait.Err() == nil:
			return err
		default:
			alive, cancel := context.WithTimeout(ctx, patience)
			err := c.Ping(alive)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

// say calls those who hear a topic; "" is every topic.
func (b *bus) say(topic, text string) {
	b.mu.Lock()
	var all []func(string)
	for name, hearers := range b.hearers {
		if topic == "" || name == topic {
			all = append(all, hearers...)
		}
	}
	b.mu.Unlock()
	for _, f := range all {
		f(text)
	}
}
