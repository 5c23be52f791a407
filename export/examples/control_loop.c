/*
 * Runs an exported policy once in every control period, on Linux and other systems with clock_nanosleep.
 *
 *     crl-distill export runs/student --format c --out robot
 *     cp control_loop.c robot && cd robot
 *     cc -std=c99 -O2 control_loop.c policy.c -o control_loop -lm && ./control_loop 1000
 *
 * Fill in `sense` and `act`; policy.h names the meaning of every number. The file compiles as C++ too.
 */
#define _POSIX_C_SOURCE 200112L

#include "policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void sense(float *observation, float *goal)
{
    for (int i = 0; i < POLICY_OBSERVATION; i++)
        observation[i] = 0.0f; /* read your sensors here */
    for (int i = 0; i < POLICY_GOAL; i++)
        goal[i] = 0.0f; /* set the goal here */
}

static void act(const float *action)
{
    (void)action; /* send it to your actuators here */
}

static void advance(struct timespec *tick, long nanoseconds)
{
    tick->tv_nsec += nanoseconds;
    while (tick->tv_nsec >= 1000000000L) {
        tick->tv_nsec -= 1000000000L;
        tick->tv_sec++;
    }
}

int main(int count, char **arguments)
{
    const long steps = count > 1 ? strtol(arguments[1], NULL, 10) : 1000;
    const long period = (long)(1e9f * POLICY_CONTROL_PERIOD + 0.5f);
    float observation[POLICY_OBSERVATION], goal[POLICY_GOAL], action[POLICY_ACTION];
    struct timespec tick, now;
    long missed = 0;

    clock_gettime(CLOCK_MONOTONIC, &tick);
    for (long step = 0; step < steps; step++) {
        sense(observation, goal);
        policy_act(observation, goal, action);
        act(action);
        advance(&tick, period);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > tick.tv_sec || (now.tv_sec == tick.tv_sec && now.tv_nsec > tick.tv_nsec)) {
            missed++;
            tick = now; /* skip missed ticks: a burst of late actions would be worse */
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &tick, NULL) == EINTR) {
        }
    }
    printf("%ld steps, %ld late\n", steps, missed);
    return 0;
}
