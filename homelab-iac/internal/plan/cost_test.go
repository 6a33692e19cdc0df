package plan

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func planned(t *testing.T, steps ...step) Plan {
	t.Helper()
	var texts []string
	for _, s := range steps {
		texts = append(texts, s.json(t))
	}
	p, err := Read(strings.NewReader(planOf(texts...)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCostIsWhatChangesAndNeverAGuess(t *testing.T) {
	prices, err := ReadPrices([]byte("currency: EUR\nas_of: \"2026-07\"\nprices:\n  - {type: srv, attribute: product_id, value: S, monthly: 5}\n  - {type: srv, attribute: product_id, value: L, monthly: 14}\n  - {type: bucket, monthly: 0, usage: true}\n"))
	if err != nil {
		t.Fatal(err)
	}
	small, large := `"product_id":"S"`, `"product_id":"L"`
	for name, c := range map[string]struct {
		s       step
		monthly float64
		unknown bool
		usage   bool
	}{
		"a new one":             {step{"srv.a", "create", "-", small, ""}, 5, false, false},
		"one that goes":         {step{"srv.a", "delete", large, "-", ""}, -14, false, false},
		"a larger one":          {step{"srv.a", "update", small, large, ""}, 9, false, false},
		"one made anew":         {step{"srv.a", "delete,create", small, small, ""}, 0, false, false},
		"one that stays":        {step{"srv.a", "no-op", small, small, ""}, 0, false, false},
		"an unknown product":    {step{"srv.a", "create", "-", `"product_id":"X"`, ""}, 0, true, false},
		"what is paid by use":   {step{"bucket.a", "create", "-", `"bucket":"b"`, ""}, 0, false, true},
		"what costs nothing":    {step{"rule.a", "create", "-", `"x":1`, ""}, 0, false, false},
		"a product not yet set": {step{"srv.a", "create", "-", ``, `,"after_unknown":{"product_id":true}`}, 0, true, false},
	} {
		got := planned(t, c.s).Cost(prices)
		if got.Monthly != c.monthly || (len(got.Unknown) > 0) != c.unknown || (len(got.Usage) > 0) != c.usage {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, bad := range []string{"prices: [{monthly: 1}]", "prices: [{type: a, monthly: -1}]", "prices: [{type: a, attribute: b}]", "prise: []"} {
		if _, err := ReadPrices([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	text, err := os.ReadFile("../../ci/prices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPrices(text); err != nil || len(p.Prices) == 0 || p.AsOf == "" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestFingerprintsDifferExactlyWherePlansDo(t *testing.T) {
	one := step{"a.x", "update", `"size":1,"secret":"hush"`, `"size":2,"secret":"hush"`, ""}
	same := planned(t, one).Fingerprint("lineage")
	if same != planned(t, one, step{"a.y", "no-op", `"x":1`, `"x":1`, ""}).Fingerprint("lineage") {
		t.Error("what stays counts")
	}
	var seen []string
	for i, p := range []Plan{
		planned(t, one),
		planned(t, step{"a.x", "update", `"size":1,"secret":"hush"`, `"size":3,"secret":"hush"`, ""}),
		planned(t, step{"a.x", "update", `"size":1,"secret":"other"`, `"size":2,"secret":"other"`, ""}),
		planned(t, step{"a.z", "update", `"size":1,"secret":"hush"`, `"size":2,"secret":"hush"`, ""}),
		planned(t, step{"a.x", "delete,create", `"size":1,"secret":"hush"`, `"size":2,"secret":"hush"`, ""}),
		planned(t, one, step{"a.y", "create", "-", `"x":1`, ""}),
		planned(t),
	} {
		print := p.Fingerprint("lineage")
		if slices.Contains(seen, print) || strings.Contains(fmt.Sprint(print), "hush") {
			t.Errorf("plan %d has the fingerprint of another", i)
		}
		seen = append(seen, print)
	}
	if planned(t, one).Fingerprint("another lineage") == same {
		t.Error("the key does not matter")
	}
	if !planned(t).Empty() || planned(t, one).Empty() || !planned(t, step{"a.y", "no-op", `"x":1`, `"x":1`, ""}).Empty() {
		t.Error("what is empty and what is not")
	}
}
