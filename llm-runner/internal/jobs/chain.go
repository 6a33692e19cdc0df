package jobs

import "strings"

// output is where a step wants the answer of the step before.
const output = "{{output}}"

// split returns the steps of a chain: the text below each heading of level 2, outside code fences. What stands before the
// first heading belongs to every step. Headings without text make no step.
func split(prompt string) []string {
	var steps []string
	var before, step strings.Builder
	at, fence := &before, ""
	end := func() {
		if text := strings.TrimSpace(step.String()); text != "" {
			steps = append(steps, text)
		}
		step.Reset()
	}
	for line := range strings.Lines(prompt) {
		text := strings.TrimSpace(line)
		switch {
		case fence != "":
			if strings.HasPrefix(text, fence) && strings.Trim(text, fence[:1]) == "" {
				fence = ""
			}
		case strings.HasPrefix(text, "```"), strings.HasPrefix(text, "~~~"):
			fence = text[:3]
		case strings.HasPrefix(line, "## "):
			end()
			at = &step
			continue
		}
		at.WriteString(line)
	}
	end()
	if common := strings.TrimSpace(before.String()); common != "" {
		for i := range steps {
			steps[i] = common + "\n\n" + steps[i]
		}
	}
	return steps
}

// fill puts the answer of the step before into a step. A step that does not say where gets it at its end.
func fill(step, before string) string {
	if before == "" {
		return strings.ReplaceAll(step, output, "")
	}
	if strings.Contains(step, output) {
		return strings.ReplaceAll(step, output, before)
	}
	return step + "\n\nThe answer of the step before:\n\n" + before
}

// steps are the prompts of a job, in order.
func (j *Job) steps() []string {
	if j.Type == Chain {
		return split(j.Prompt)
	}
	return []string{j.Prompt}
}
