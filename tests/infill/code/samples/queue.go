package queue

import (
	"errors"
	"fmt"
	"sync"
)

var ErrClosed = errors.New("queue: closed")

// Queue holds jobs in the order in which they arrive.
type Queue struct {
	mu     sync.Mutex
	jobs   []Job
	closed bool
}

func (q *Queue) Push(job Job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.jobs = append(q.jobs, job)
	return nil
}

func (q *Queue) Run(workers int, handle func(Job) error) error {
	results := make(chan error, workers)
	for i := 0; i < workers; i++ {
		go func(number int) {
			for _, job := range q.take(number) {
				if err := handle(job); err != nil {
					results <- fmt.Errorf("worker %d: job %q: %w", number, job.Name, err)
					return
				}
			}
			results <- nil
		}(i)
	}
	return <-results
}
