package plan

import (
	"fmt"
	"slices"
	"strings"

	"labctl/host/matrix"
	"labctl/host/outcome"
)

// maxGitHubJobs is what GitHub lets a matrix have (docs.github.com, "Usage
// limits").
const maxGitHubJobs = 256

// GitHubJobs is the strategy.matrix of a job for GitHub Actions.
type GitHubJobs struct {
	Include []GitHubJob `json:"include"`
}

// GitHubJob is one entry of it: a shard of a plan.
type GitHubJob struct {
	Shard string `json:"shard"`
	Name  string `json:"name"` // where the shard runs: its first and last kernel and machine, or up to three that are apart
}

// GitHub returns a job for each of so many shards of a plan that is divided by costs,
// or as many as there are kernels on machines when shards is 0.
func GitHub(cells []matrix.Cell, costs []int, shards int) (*GitHubJobs, error) {
	if shards == 0 {
		shards = 1
		for i := range cells[1:] {
			if place(cells[i]) != place(cells[i+1]) {
				shards++
			}
		}
		shards = min(shards, maxGitHubJobs)
	}
	if err := (matrix.Shard{Index: 1, Of: shards}).Fits(len(cells)); err != nil || shards > maxGitHubJobs {
		return nil, outcome.Inputf("--shards %d: the plan has %d cells, and GitHub takes at most %d jobs", shards, len(cells), maxGitHubJobs)
	}
	out := &GitHubJobs{}
	for i, part := range matrix.Shards(cells, costs, shards) {
		out.Include = append(out.Include, GitHubJob{matrix.Shard{Index: i + 1, Of: shards}.String(), nameOf(cells, part)})
	}
	return out, nil
}

// nameOf says where the cells of a shard run.
func nameOf(cells []matrix.Cell, part []int) string {
	first, last := part[0], part[len(part)-1]
	if last-first < len(part) { // side by side in the plan
		if place(cells[first]) == place(cells[last]) {
			return place(cells[first])
		}
		return place(cells[first]) + " to " + place(cells[last])
	}
	var places []string
	for _, i := range part {
		if p := place(cells[i]); !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	if more := len(places) - 3; more > 0 {
		places = append(places[:3], fmt.Sprintf("%d more", more))
	}
	return strings.Join(places, ", ")
}

// place is where a cell runs.
func place(c matrix.Cell) string { return c.Kernel + "/" + c.Target }
