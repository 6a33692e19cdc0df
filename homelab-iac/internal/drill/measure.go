package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/tree"
)

// A Measurement is what homelab measure prints: folders by path.
type Measurement map[string][]tree.Entry

// Skips is what a service's backup leaves out below a path. Pure.
func Skips(p catalog.Path) func(rel string) bool {
	return func(rel string) bool { return slices.Contains(p.Exclude, rel) }
}

// Measure measures the folders of services.
func Measure(services []catalog.Service) (Measurement, error) {
	m := Measurement{}
	for _, s := range services {
		if err := m.Add(s); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Add measures the folders of one more service.
func (m Measurement) Add(s catalog.Service) error {
	for _, p := range s.Backup.Paths {
		entries, err := tree.Measure(p.Path, Skips(p))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %s runs on %s; is this that machine, and is the disk mounted?", err, s.Name, s.Host)
		}
		if err != nil {
			return err
		}
		m[p.Path] = entries
	}
	return nil
}

// Write writes the measurement into a file, whole or not at all.
func (m Measurement) Write(file string) error {
	text, err := json.Marshal(m)
	if err == nil {
		err = backup.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write measurement: %w", err)
	}
	return nil
}

// ReadMeasurement reads what Write wrote.
func ReadMeasurement(file string) (m Measurement, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("read measurement %s: %w: make it with homelab measure, or with backup run --reference", file, err)
	}
	return m, nil
}
