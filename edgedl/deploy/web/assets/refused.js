/** What is wrong with a question, as the service says it with a status. */
export class Refused extends Error {
  /** @param {string} detail a sentence @param {number} [status] of HTTP */
  constructor(detail, status = 422) {
    super(detail);
    this.status = status;
  }
}
