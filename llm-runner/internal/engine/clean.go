package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

const (
	cleanEvery = time.Minute
	keptFor    = time.Hour // long after the end of a call, nobody starts it a second time under its id
	cleanBatch = 500       // calls that are deleted in one transaction: it holds up other writers for some milliseconds
)

// Run deletes calls of tasks that ended more than an hour ago, until ctx ends: what became of them is in their owners' tables.
// Calls that wait, run or are delayed stay. Meanwhile it sees whether the clock was set, see Moves.
func (e *Engine) Run(ctx context.Context) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() { e.keepLooking(ctx) })
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if _, err := e.clean(ctx, time.Now().Add(-keptFor)); err != nil && ctx.Err() == nil && e.ctx.Err() == nil {
			e.config.Log.Warn("delete ended tasks", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *Engine) keepLooking(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := e.Look(ctx); err != nil && ctx.Err() == nil {
			e.config.Log.Warn("look whether the clock was set, and move what waits with it", "error", err)
		}
	}
}

// clean deletes the calls that ended before a moment and returns how many.
func (e *Engine) clean(ctx context.Context, before time.Time) (n int, err error) {
	for ctx.Err() == nil {
		ended, err := dbos.ListWorkflows(e.ctx, dbos.WithFilterName(workflow), dbos.WithFilterStatus(dbos.WorkflowStatusSuccess,
			dbos.WorkflowStatusError, dbos.WorkflowStatusCancelled, dbos.WorkflowStatusMaxRecoveryAttemptsExceeded),
			dbos.WithFilterCompletedBefore(before), dbos.WithFilterLimit(cleanBatch), dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
		if err != nil {
			return n, fmt.Errorf("list ended tasks: %w", err)
		}
		if len(ended) == 0 {
			return n, nil
		}
		ids := make([]string, len(ended))
		for i, w := range ended {
			ids[i] = w.ID
		}
		if err := dbos.DeleteWorkflows(e.ctx, ids); err != nil {
			return n, fmt.Errorf("delete %d ended tasks: %w", len(ids), err)
		}
		n += len(ids)
	}
	return n, ctx.Err()
}
