package main

import (
	"os"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestKubernetes holds the manifest in docs/ci.md against the API's own types, in which
// every field must be known, and against what the API asks of an Indexed Job
// (pkg/apis/batch/validation/validation.go of Kubernetes).
func TestKubernetes(t *testing.T) {
	b, err := os.ReadFile("../../docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(b), "\n## Kubernetes\n")
	_, part, there := strings.Cut(part, "```yaml\n")
	manifest, _, closed := strings.Cut(part, "\n```\n")
	if !ok || !there || !closed {
		t.Fatal("docs/ci.md has no manifest in its section on Kubernetes")
	}
	var job batch.Job
	if err := yaml.UnmarshalStrict([]byte(manifest), &job); err != nil {
		t.Fatalf("the manifest: %v", err)
	}
	s := job.Spec
	if job.APIVersion != "batch/v1" || job.Kind != "Job" || job.Name == "" {
		t.Errorf("it is a %s of %s called %q; want a named Job of batch/v1", job.Kind, job.APIVersion, job.Name)
	}
	if s.CompletionMode == nil || *s.CompletionMode != batch.IndexedCompletion || s.Completions == nil || s.Parallelism == nil || s.BackoffLimitPerIndex == nil {
		t.Fatalf("%+v; want an Indexed Job with completions, parallelism and backoffLimitPerIndex", s)
	}
	pod := s.Template.Spec
	if pod.RestartPolicy != core.RestartPolicyNever {
		t.Errorf("restartPolicy %q; backoffLimitPerIndex wants Never", pod.RestartPolicy)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range pod.Containers {
		if c.Image == "" || len(c.Args) != 1 || !strings.Contains(c.Args[0], "JOB_COMPLETION_INDEX + 1))/4") || *s.Completions != 4 {
			t.Errorf("container %s: image %q, %d completions, and the command %q; want as many shards as completions", c.Name, c.Image, *s.Completions, c.Args)
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("container %s mounts %s, which is no volume of the pod", c.Name, m.Name)
			}
		}
		for name, q := range c.Resources.Requests {
			if limit, ok := c.Resources.Limits[name]; ok && q.Cmp(limit) > 0 {
				t.Errorf("container %s asks for %v of %s, above its limit %v", c.Name, &q, name, &limit)
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(strings.Replace(manifest, "completions:", "completion:", 1)), &job); err == nil {
		t.Error("a field that the API does not know is taken")
	}
}
