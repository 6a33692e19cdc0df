package online

import (
	"slices"
	"testing"
)

func TestEveryMachineOfTheLabRunsSomething(t *testing.T) {
	needs, err := Needs()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range Hosts {
		if len(needs[host]) == 0 {
			t.Errorf("%s runs nothing", host)
		}
	}
	for host, names := range needs {
		if !slices.Contains(Hosts, host) {
			t.Errorf("the catalog runs %v on %s, which the lab does not have", names, host)
		}
	}
}
