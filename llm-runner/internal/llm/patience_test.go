package llm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyStandingInLineIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, p, stop := WithPatience(t.Context(), time.Hour)
		defer stop()
		if PatienceOf(ctx) != p || PatienceOf(t.Context()) != nil {
			t.Fatal("the context does not have it")
		}
		leave := p.Wait("davas")
		time.Sleep(20 * time.Minute)
		work := p.Work() // another request of the same work has its place
		time.Sleep(10 * time.Hour)
		work()
		time.Sleep(20 * time.Minute)
		if d, where := p.Waited(); d != 40*time.Minute || where != "davas" {
			t.Errorf("%s in the line of %q", d, where)
		}
		leave()
		leave()
		work = p.Work()
		time.Sleep(24 * time.Hour)
		work()
		synctest.Wait()
		if d, _ := p.Waited(); d != 40*time.Minute || ctx.Err() != nil {
			t.Fatalf("%s, %v", d, ctx.Err())
		}
		leave = p.Wait("davas")
		defer leave()
		time.Sleep(20*time.Minute - time.Second)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("it ended too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), ErrImpatient) {
			t.Errorf("it waits on: %v", context.Cause(ctx))
		}
	})
}

func TestNobodysPatienceCountsNothing(t *testing.T) {
	var p *Patience
	p.Wait("davas")()
	p.Work()()
}
