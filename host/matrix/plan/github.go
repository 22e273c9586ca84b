package plan

import (
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
	Name  string `json:"name"` // the kernels and machines of the shard, from the first to the last
}

// GitHub returns a job for each of so many shards of a plan, or for each kernel on
// each machine when shards is 0.
func GitHub(cells []matrix.Cell, shards int) (*GitHubJobs, error) {
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
	for i := 1; i <= shards; i++ {
		s := matrix.Shard{Index: i, Of: shards}
		from, to := s.Range(len(cells))
		name := place(cells[from])
		if last := place(cells[to-1]); last != name {
			name += " to " + last
		}
		out.Include = append(out.Include, GitHubJob{s.String(), name})
	}
	return out, nil
}

// place is where a cell runs.
func place(c matrix.Cell) string { return c.Kernel + "/" + c.Target }
