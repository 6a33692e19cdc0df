package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Prices are what rented things cost, as a person wrote them down.
type Prices struct {
	Currency string  `yaml:"currency"`
	AsOf     string  `yaml:"as_of"` // 2026-11-01: prices age
	Prices   []Price `yaml:"prices"`
}

// A Price is what one object costs each month.
type Price struct {
	Type      string  `yaml:"type"`      // contabo_instance
	Attribute string  `yaml:"attribute"` // the attribute that the price hangs on; empty: all objects of the type cost the same
	Value     string  `yaml:"value"`     // of that attribute
	Monthly   float64 `yaml:"monthly"`
	Usage     bool    `yaml:"usage"` // it costs what is used; a plan cannot tell how much that is
}

// ReadPrices reads a list of prices. Unknown keys are errors.
func ReadPrices(text []byte) (Prices, error) {
	var p Prices
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		return p, fmt.Errorf("read prices: %w", err)
	}
	for i, x := range p.Prices {
		if x.Type == "" || x.Monthly < 0 || math.IsNaN(x.Monthly) || (x.Attribute == "") != (x.Value == "") {
			return p, fmt.Errorf("read prices: entry %d needs a type, a monthly price that is not negative, and attribute and value together or neither", i+1)
		}
	}
	return p, nil
}

// A Cost is what a plan changes in what is paid each month.
type Cost struct {
	Monthly float64  `json:"monthly"` // more (or, negative, less) than before, in Prices.Currency
	Unknown []string `json:"unknown"` // addresses whose price is not in the list; only of types that have a price
	Usage   []string `json:"usage"`   // addresses that cost what is used
}

// Cost is what the plan changes in what is paid. The values on which prices hang are looked at and not told.
func (p Plan) Cost(list Prices) Cost {
	var c Cost
	for _, r := range p.Resources {
		kind := r.Kind()
		if r.Mode != "managed" || r.PutOff != "" || kind == Same || kind == Look || kind == Forget || !slices.ContainsFunc(list.Prices, func(x Price) bool { return x.Type == r.Type }) {
			continue
		}
		was, wasKnown, _ := list.price(r, before)
		is, isKnown, usage := list.price(r, after)
		switch {
		case usage:
			if kind != Update {
				c.Usage = append(c.Usage, r.Address)
			}
		case !wasKnown || !isKnown:
			c.Unknown = append(c.Unknown, r.Address)
		default:
			c.Monthly += is - was
		}
	}
	return c
}

// price is what one side of a resource costs; nothing costs nothing.
func (l Prices) price(r Resource, s side) (monthly float64, known, usage bool) {
	if r.side(s) == nil {
		return 0, true, false
	}
	for _, x := range l.Prices {
		if x.Type == r.Type && (x.Attribute == "" || r.text(s, x.Attribute) == x.Value) {
			return x.Monthly, true, x.Usage
		}
	}
	return 0, false, false
}
