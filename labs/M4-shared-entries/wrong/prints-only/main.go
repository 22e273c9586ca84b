// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("thread: the same entry; child: another") }
