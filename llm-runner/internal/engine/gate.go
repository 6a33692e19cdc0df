package engine

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// topic is what processes that share a database tell each other when a task may begin.
const topic = "task"

// look is in each query with which DBOS looks whether its queue has anything (GetQueuePartitions of DBOS 1.8.0), and in no other.
const look = "WITH RECURSIVE partitions"

// rarely is by how much less often queues are looked at of tasks that need something: they are few, and have time.
const rarely = 10

// A gate stands before the queries of DBOS. DBOS looks at each of its queues, sleeps, and looks again, and nothing can wake it. So it
// is told to sleep for pollAlone only, and what is left until a look is due it waits here, where it can be woken: at rest the
// database is asked no more often than every so long, and a task that starts is seen at once, or after pollAlone. Were a later
// DBOS to look otherwise, it would do so every pollAlone.
type gate struct {
	every time.Duration

	mu     sync.Mutex
	queues map[string]*watched
	looks  int
}

// watched is what is known of one queue.
type watched struct {
	woken chan struct{} // holds one: nobody looks twice for two tasks that started together
	last  time.Time     // of the last look
}

func newGate(every time.Duration) *gate { return &gate{every: every, queues: map[string]*watched{}} }

// of returns what is known of a queue. The caller holds the lock.
func (g *gate) of(queue string) *watched {
	w := g.queues[queue]
	if w == nil {
		w = &watched{woken: make(chan struct{}, 1)}
		g.queues[queue] = w
	}
	return w
}

// wake has a queue be looked at now; "" all of them.
func (g *gate) wake(queue string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, w := range g.queues {
		if queue == "" || queue == name {
			select {
			case w.woken <- struct{}{}:
			default:
			}
		}
	}
}

// pool opens a pool like p whose queries pass the gate, and closes p.
func (g *gate) pool(ctx context.Context, p *pgxpool.Pool) (*pgxpool.Pool, error) {
	config := p.Config()
	config.ConnConfig.Tracer = g
	p.Close()
	return pgxpool.NewWithConfig(ctx, config)
}

// TraceQueryStart implements pgx.QueryTracer: pgx calls it before it sends a query, and waits for it.
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, look) && len(data.Args) > 0 {
		queue, _ := data.Args[0].(string)
		g.pass(ctx, queue)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (g *gate) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// pass waits until a look at a queue is due, or worth it, or ctx ends.
func (g *gate) pass(ctx context.Context, queue string) {
	g.mu.Lock()
	w := g.of(queue)
	every := g.every
	if queue != queueName {
		every *= rarely
	}
	due := time.NewTimer(every - time.Since(w.last))
	g.mu.Unlock()
	defer due.Stop()
	select {
	case <-w.woken:
	case <-due.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	w.last = time.Now()
	g.looks++
	g.mu.Unlock()
}
