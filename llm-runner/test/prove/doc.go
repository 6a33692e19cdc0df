// Package prove drives the finished program as its users do: the real binary, a real Ollama, the official OpenAI client.
// Nothing is imitated but a provider's rate limit, so it needs more than Go; llm-runner/test/setup.sh installs it all. Run
// it with
//
//	make prove        # or: go test -tags prove ./llm-runner/test/...
//
// LLM_RUNNER_BIN names a binary to prove instead of one that is built from this tree.
package prove
